//! `haul mkdir`

use clap::Args;

use crate::cli::remote_session::RemoteSession;

/// Make directories
#[derive(Debug, Args)]
pub(super) struct MkdirArgs {
    /// The directories to make
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Make missing parents too, and do not mind a directory that is there
    #[arg(long, short)]
    parents: bool,
}

impl MkdirArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        for path in &self.paths {
            let path = remote.client.mkdir(path, self.parents).await?;
            remote.output.done(&path)?;
        }
        Ok(())
    }
}

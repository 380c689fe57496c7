//! `haul mkdir`

use clap::Args;

use crate::cli::remote_session::RemoteSession;

/// Create directories
#[derive(Debug, Args)]
pub(super) struct MkdirArgs {
    /// The directories on the server
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Create missing parent directories, and accept existing directories
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

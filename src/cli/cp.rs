//! `haul cp`

use clap::Args;

use crate::cli::remote_session::RemoteSession;
use crate::cli::transfer::{IfExistsChoice, into_directory, must_differ, why_not};

/// Copy on the server
///
/// If the last path is a directory that is there, or ends with a slash, the others go into it under
/// their own names; otherwise it is the new name of the only other.
#[derive(Debug, Args)]
pub(super) struct CpArgs {
    /// The path to copy
    #[arg(required = true, value_name = "FROM")]
    from: Vec<String>,
    /// The new path, or a directory
    #[arg(value_name = "TO")]
    to: String,
    /// The action if the new path exists already
    #[arg(long, value_enum, default_value = "fail")]
    if_exists: IfExistsChoice,
}

impl CpArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let pairs = into_directory(remote, self.from, &self.to).await?;
        for (from, to) in &pairs {
            must_differ(remote, from, to).await?;
            match remote.client.cp(from, to, self.if_exists.into()).await {
                Ok(path) => remote.output.done(&path)?,
                Err(error) => return Err(why_not(remote, from, to, error).await),
            }
        }
        Ok(())
    }
}

//! `haul passwd`

use clap::Args;
use tokio::task::spawn_blocking;

use crate::cli::password::changed_password;
use crate::cli::remote_session::RemoteSession;

/// Change your password on the server
///
/// The command asks for the current password and twice for the new one. Without a terminal, the first
/// line of standard input is the current password and the second line the new one. Open sessions
/// and tokens stay valid.
#[derive(Debug, Args)]
pub(super) struct PasswdArgs {}

impl PasswdArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let (old, new) = spawn_blocking(changed_password).await??;
        remote.client.passwd(&old, &new).await?;
        remote
            .output
            .note("changed the password; devices and programs that have a token stay logged in");
        Ok(())
    }
}

//! `haul passwd`

use clap::Args;
use tokio::task::spawn_blocking;

use crate::cli::password::changed_password;
use crate::cli::remote_session::RemoteSession;

/// Change your password on the server
///
/// Asks for the old password and twice for the new one. Without a terminal, the first line of
/// standard input is the old one and the second the new one. Sessions that are open and tokens stay
/// as they are.
#[derive(Debug, Args)]
pub(super) struct PasswdArgs {}

impl PasswdArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let (old, new) = spawn_blocking(changed_password).await??;
        remote.client.passwd(&old, &new).await?;
        remote.output.note(
            "changed the password; where `haul connect` remembered the old one, type that again",
        );
        Ok(())
    }
}

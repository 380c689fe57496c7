//! `haul decline`

use clap::Args;

use crate::cli::remote_session::RemoteSession;

/// Decline a file that another user offers
#[derive(Debug, Args)]
pub(super) struct DeclineArgs {
    /// The offer; `offers` lists them
    offer: String,
}

impl DeclineArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        remote.client.decline(&self.offer).await?;
        Ok(())
    }
}

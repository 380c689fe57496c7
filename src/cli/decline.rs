//! `haul decline`

use clap::Args;

use crate::cli::remote_session::Remote;

/// Do not take a file that another user offers
#[derive(Debug, Args)]
pub(super) struct Decline {
    /// The offer; `offers` lists them
    offer: String,
}

impl Decline {
    pub(super) async fn run(self, remote: &Remote) -> anyhow::Result<()> {
        remote.client.decline(&self.offer).await?;
        Ok(())
    }
}

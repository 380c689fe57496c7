//! `haul withdraw`

use clap::Args;

use crate::cli::failures::Failures;
use crate::cli::remote_session::RemoteSession;

/// Withdraw offers of yours that nobody has accepted
#[derive(Debug, Args)]
pub(super) struct WithdrawArgs {
    /// The offers; `offers --sent` lists them
    #[arg(required = true, value_name = "OFFER")]
    offers: Vec<String>,
}

impl WithdrawArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut failures = Failures::new(remote.output, "withdraw", self.offers.len());
        for offer in &self.offers {
            if let Err(error) = remote.client.decline(offer).await {
                failures.add(error.into())?;
            }
        }
        failures.finish()
    }
}

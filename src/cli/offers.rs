//! `haul offers`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::Offer;

/// List the files that other users offer you, or that you offer
#[derive(Debug, Args)]
pub(super) struct OffersArgs {
    /// List the files that you offer; `withdraw` ends such an offer
    #[arg(long, short)]
    sent: bool,
}

impl OffersArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let reply = if self.sent {
            remote.client.sent_offers().await?
        } else {
            remote.client.offers().await?
        };
        if reply.offers.is_empty() {
            // Neither a headline without rows nor a JSON object.
            return Ok(());
        }
        remote
            .output
            .list(&reply.offers, || offered(&reply.offers))?;
        if reply.more {
            remote
                .output
                .note("more files are offered than this list shows");
        }
        Ok(())
    }
}

/// For people.
pub(super) fn offered(offers: &[Offer]) -> String {
    let is_sent = offers.iter().any(|offer| offer.to.is_some());
    let row = |offer: &Offer| {
        [
            safe(&offer.offer).into_owned(),
            safe(offer.to.as_deref().unwrap_or(&offer.from)).into_owned(),
            size(offer.size),
            local_time(offer.expires),
            safe(&offer.path).into_owned(),
        ]
    };
    let rows: Vec<_> = offers.iter().map(row).collect();
    let user = if is_sent { "TO" } else { "FROM" };
    table(["OFFER", user, "SIZE", "UNTIL", "FILE"], &rows)
}

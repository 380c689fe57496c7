//! `haul accept`

use clap::Args;

use crate::cli::offers::offered;
use crate::cli::output::{print, safe};
use crate::cli::remote_session::RemoteSession;
use crate::client::Client;
use crate::protocol::{Offer, PathReply};

/// Accept a file that another user offers
///
/// The server copies the file, and the path of the copy is printed. If several files are offered and
/// none is named, they are listed and none is accepted.
#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The offer, if there are several; `offers` lists them
    offer: Option<String>,
    /// The path of the copy; the default is a free name in the current directory
    path: Option<String>,
}

impl AcceptArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let client = &remote.client;
        let offer = match self.offer {
            Some(offer) => offer,
            None => match only(client).await? {
                OfferChoice::Only(offer) => offer.offer,
                OfferChoice::Several(offers) => {
                    if !remote.output.is_json() {
                        print(&offered(&offers))?;
                    }
                    anyhow::bail!(
                        "several files are offered; name one of them: `haul accept OFFER`"
                    );
                }
            },
        };
        let path = client.accept(&offer, self.path.as_deref()).await?;
        let reply = PathReply { path };
        remote
            .output
            .result(&reply, |reply| safe(&reply.path).into_owned())
    }
}

/// The offers that are accepted without being named.
pub(super) enum OfferChoice {
    Only(Offer),
    Several(Vec<Offer>),
}

/// The only offer, if it is one.
pub(super) async fn only(client: &Client) -> anyhow::Result<OfferChoice> {
    let mut offers = client.offers().await?.offers;
    match offers.pop() {
        None => anyhow::bail!("no file is offered to you"),
        Some(only) if offers.is_empty() => Ok(OfferChoice::Only(only)),
        Some(last) => {
            offers.push(last);
            Ok(OfferChoice::Several(offers))
        }
    }
}

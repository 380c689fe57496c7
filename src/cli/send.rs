//! `haul send`

use std::path::Path;

use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::client::ClientError;
use crate::protocol::{ErrorCode, SendReply};

/// Offer a file on the server to another user
///
/// The user gets a copy of the file by accepting the offer, whose name is printed. To offer a local
/// file, upload it first with `put`.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The user
    user: String,
    /// The file on the server
    path: String,
}

impl SendArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        match remote.client.send(&self.user, &self.path).await {
            Ok(offer) => remote.output.result(&SendReply { offer }, |reply| {
                safe(&reply.offer).into_owned()
            }),
            Err(error) => Err(self.explained(remote, error).await),
        }
    }

    /// It is a common mistake to name a file of this machine.
    async fn explained(&self, remote: &RemoteSession, error: ClientError) -> anyhow::Error {
        let is_local = Path::new(&self.path).is_file();
        if error.code() == Some(ErrorCode::NotFound) && is_local {
            let there = remote.client.stat(&self.path).await;
            if there.is_err_and(|error| error.code() == Some(ErrorCode::NotFound)) {
                let path = &self.path;
                return anyhow::Error::msg(format!(
                    "{path} is on this machine but not on the server; \
                     upload it first with `haul put {path}`"
                ));
            }
        }
        error.into()
    }
}

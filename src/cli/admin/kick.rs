//! `haul admin kick`

use clap::Args;

use crate::cli::output::count;
use crate::cli::remote_session::RemoteSession;
use crate::protocol;
use crate::protocol::KickReply;

/// End a session, or all of a user
///
/// They are told goodbye, and what they have under way is cut off; an upload is kept, to be resumed.
/// To keep a user out, disable the account as well: `haul user set NAME --disable`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
#[command(after_long_help = "Examples:\n  \
    haul admin kick --user alice\n  \
    haul admin kick 3f2a9c0d11e4b7a6")]
pub(super) struct AdminKickArgs {
    /// The session, as `haul admin sessions` shows it
    session: Option<String>,
    /// The user, of whose sessions only the one that asks is left
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl AdminKickArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let request = protocol::Kick {
            session: self.session,
            user: self.user,
        };
        let reply = remote.client.call(request).await?;
        remote.output.result(&reply, |reply: &KickReply| {
            format!("ended {}", count(reply.kicked, "session"))
        })
    }
}

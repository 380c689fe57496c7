//! `haul admin kick`

use anyhow::bail;
use clap::Args;

use crate::cli::output::count;
use crate::cli::remote_session::RemoteSession;
use crate::protocol;
use crate::protocol::KickReply;

/// End a session, or all sessions of a user
///
/// Transfers of the session are interrupted; an upload can be resumed. To refuse further logins,
/// disable the account as well: `haul user set NAME --disable`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct AdminKickArgs {
    /// The session; `admin sessions` lists them
    session: Option<String>,
    /// End all sessions of this user except the one of this command
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl AdminKickArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let request = protocol::Kick {
            session: self.session,
            user: self.user,
        };
        let user = request.user.clone();
        let reply = remote.client.call(request).await?;
        if let (Some(user), 0) = (user, reply.kicked) {
            bail!("{user} has no session to end; `haul admin sessions` lists the sessions");
        }
        remote.output.result(&reply, |reply: &KickReply| {
            format!("ended {}", count(reply.kicked, "session"))
        })
    }
}

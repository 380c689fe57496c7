//! `kick`: end a session, or all of a user.

use tracing::info;

use crate::protocol::{Kick, KickReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::telemetry::AUDIT;

impl Command for Kick {
    async fn apply(self, member: &mut Member) -> Result<KickReply, CommandError> {
        let sessions = &member.shared.sessions;
        let own = &*member.session;
        let kicked = match (&self.session, &self.user) {
            (Some(wanted), None) if wanted == own => {
                let message = "that is the session that asks; `quit` ends it";
                return Err(CommandError::invalid_field("session", message));
            }
            (Some(wanted), None) => sessions.kick(|session, _| session == wanted),
            (None, Some(wanted)) => sessions.kick(|session, user| user == wanted && session != own),
            _ => {
                let message = "a kick has `session` or `user`, and not both";
                return Err(CommandError::invalid_field("session", message));
            }
        };
        if kicked == 0 {
            return Err(CommandError::NoSuchSession);
        }
        info!(
            name: "kicked",
            target: AUDIT,
            on_session = self.session,
            on_user = self.user,
            kicked,
            "ended sessions"
        );
        Ok(KickReply {
            kicked: kicked as u64,
        })
    }
}

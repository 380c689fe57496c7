//! `reload`: read the settings and the certificate again, as on SIGHUP.

use tokio::sync::oneshot;

use crate::protocol::{ReloadReply, ReloadSettings, ReplyBudget, SettingChange};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::state::ReloadRequest;

impl Command for ReloadSettings {
    async fn apply(self, member: &mut Member) -> Result<ReloadReply, CommandError> {
        let unsupported = CommandError::NotOffered("reload");
        let asking = member.shared.reload.get().ok_or(unsupported)?;
        let (reply, replied) = oneshot::channel();
        let asked = ReloadRequest {
            dry_run: self.dry_run,
            reply,
        };
        let sent = asking.send(asked).await;
        // The receiver is dropped when the server ends.
        sent.map_err(|_| CommandError::ShuttingDown)?;
        let reply = replied.await.map_err(|_| CommandError::ShuttingDown)?;
        Ok(fitting(reply))
    }
}

/// Characters of a value or an error in the reply: a list of networks may be very long.
const MAX_TEXT_CHARS: usize = 1000;

/// Truncates a reply so that it fits in a frame.
pub(crate) fn fitting(reply: ReloadReply) -> ReloadReply {
    let mut fitting = ReloadReply {
        refused: reply.refused.map(truncate),
        certificate_refused: reply.certificate_refused.map(truncate),
        ..ReloadReply::default()
    };
    let mut budget = ReplyBudget::after(&fitting);
    let truncate_values = |change: SettingChange| SettingChange {
        from: truncate(change.from),
        to: truncate(change.to),
        ..change
    };
    let (changed, more_changed) = budget.fill(reply.changed.into_iter().map(truncate_values));
    let (needs_restart, more) = budget.fill(reply.needs_restart.into_iter().map(truncate_values));
    fitting.changed = changed;
    fitting.needs_restart = needs_restart;
    fitting.more = more_changed || more;
    fitting
}

fn truncate(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

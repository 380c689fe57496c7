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
        // The receiver is gone: the server ends.
        sent.map_err(|_| CommandError::ShuttingDown)?;
        let reply = replied.await.map_err(|_| CommandError::ShuttingDown)?;
        Ok(fitting(reply))
    }
}

/// Characters of a value, or of what is wrong, that are told: a list of networks may be very long.
const LONGEST_TEXT: usize = 1000;

/// As much of `reply` as fits in a frame.
pub(crate) fn fitting(reply: ReloadReply) -> ReloadReply {
    let mut fitting = ReloadReply {
        refused: reply.refused.map(cut),
        certificate_refused: reply.certificate_refused.map(cut),
        ..ReloadReply::default()
    };
    let mut budget = ReplyBudget::after(&fitting);
    let cut = |change: SettingChange| SettingChange {
        from: cut(change.from),
        to: cut(change.to),
        ..change
    };
    let (changed, more_changed) = budget.fill(reply.changed.into_iter().map(cut));
    let (needs_restart, more) = budget.fill(reply.needs_restart.into_iter().map(cut));
    fitting.changed = changed;
    fitting.needs_restart = needs_restart;
    fitting.more = more_changed || more;
    fitting
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

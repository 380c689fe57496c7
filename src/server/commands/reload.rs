//! `reload`: read the settings and the certificate again, as on SIGHUP.

use tokio::sync::oneshot;

use super::Command;
use crate::protocol::{ReloadReply, ReloadSettings};
use crate::server::member::Member;
use crate::server::{CommandError, ReloadAsked};

impl Command for ReloadSettings {
    async fn apply(self, member: &mut Member) -> Result<ReloadReply, CommandError> {
        member.check_admin("reload")?;
        let unsupported = CommandError::NotOffered("reload");
        let asking = member.shared.reload.get().ok_or(unsupported)?;
        let (reply, replied) = oneshot::channel();
        let asked = ReloadAsked {
            dry_run: self.dry_run,
            reply,
        };
        let sent = asking.send(asked).await;
        // Whoever reads the settings has gone: the server ends.
        sent.map_err(|_| CommandError::ShuttingDown)?;
        replied.await.map_err(|_| CommandError::ShuttingDown)
    }
}

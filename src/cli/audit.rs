//! What `haul user`, `folder` and `token` change stands in the audit of the server, too.

use rustix::process::getuid;
use tracing::info;

use crate::telemetry::{AUDIT, MachineAudit, TelemetryError};

/// The user, folder or token that was changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AuditedChange<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) folder: Option<&'a str>,
    /// The number of a token.
    pub(super) token: Option<i64>,
    /// Its new state: the options of the command, or the rights.
    pub(super) to: Option<&'a str>,
}

/// The audit of the server that a command works for.
#[derive(Debug)]
pub(super) struct AuditArgs(pub(super) MachineAudit);

impl AuditArgs {
    /// Notes that the user of this process has done `cmd`.
    pub(super) fn note(&self, cmd: &str, changed: AuditedChange<'_>) -> Result<(), TelemetryError> {
        self.0.write(|| {
            info!(
                name: "changed_on_machine",
                target: AUDIT,
                cmd,
                on_user = changed.user,
                on_folder = changed.folder,
                token = changed.token,
                set = changed.to,
                uid = getuid().as_raw(),
                "changed on the server's machine"
            );
        })
    }
}

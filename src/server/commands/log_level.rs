//! `log_level`: what is logged, and for a while something else.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use crate::protocol::{LogLevelReply, SetLogLevel};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::telemetry::{AUDIT, LogLevelHandle, TelemetryError};

impl Command for SetLogLevel {
    async fn apply(self, member: &mut Member) -> Result<LogLevelReply, CommandError> {
        let log = member.shared.log.get();
        let log = log.ok_or(CommandError::NotOffered("log_level"))?;
        let level = &log.level;
        if self.level.is_none() && self.seconds.is_some() {
            let message = "without `level` there is nothing to go back from";
            return Err(CommandError::invalid_field("seconds", message));
        }
        if let Some(wanted) = &self.level {
            let refused = |error: TelemetryError| CommandError::invalid_field("level", error);
            LogLevelHandle::check(wanted).map_err(refused)?;
            // Said first: it may be that nothing is logged after it.
            info!(
                name: "log_level_changed",
                target: AUDIT,
                level = wanted.as_str(),
                seconds = self.seconds,
                "log level changed"
            );
            let shared = member.shared.clone();
            let back = self.seconds.map(|seconds| async move {
                sleep(Duration::from_secs(seconds.into())).await;
                shared.config().log.level.clone()
            });
            log.set_level(wanted, back).map_err(refused)?;
        }
        Ok(LogLevelReply {
            level: level.current(),
            setting: member.shared.config().log.level.clone(),
        })
    }
}

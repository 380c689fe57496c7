//! `log_level`: what is logged, and for a while something else.

use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::Command;
use crate::protocol::{BadRequest, LogLevelReply, SetLogLevel};
use crate::server::CommandError;
use crate::server::member::Member;
use crate::telemetry::AUDIT;

impl Command for SetLogLevel {
    async fn apply(self, member: &mut Member) -> Result<LogLevelReply, CommandError> {
        member.check_admin("log_level")?;
        let log = member.shared.log.get();
        let log = log.ok_or(CommandError::NotOffered("log_level"))?;
        let level = &log.level;
        if self.level.is_none() && self.seconds.is_some() {
            let message = "without `level` there is nothing to go back from";
            return Err(BadRequest::of_field(0, "log_level", "seconds", message).into());
        }
        if let Some(wanted) = &self.level {
            let change = level.set(wanted).map_err(|error| {
                BadRequest::of_field(0, "log_level", "level", error.to_string())
            })?;
            info!(
                name: "log_level_changed",
                target: AUDIT,
                level = wanted.as_str(),
                seconds = self.seconds,
                "log level changed"
            );
            if let Some(seconds) = self.seconds {
                let (level, shared) = (level.clone(), member.shared.clone());
                let going_back = tokio::spawn(async move {
                    sleep(Duration::from_secs(seconds.into())).await;
                    level.set_unless_changed(&shared.config().log.level, change);
                });
                log.goes_back(&going_back);
            }
        }
        Ok(LogLevelReply {
            level: level.current(),
            setting: member.shared.config().log.level.clone(),
        })
    }
}

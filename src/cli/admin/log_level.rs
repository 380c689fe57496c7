//! `haul admin log-level`

use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{LogLevelReply, SetLogLevel};

/// Show or change the log level of the server
///
/// A change lasts for `--seconds`, or until the server reads its settings again or restarts.
#[derive(Debug, Args)]
pub(super) struct AdminLogLevelArgs {
    /// The level, as in the setting `log.level`: error, warn, info, debug, trace or a list
    level: Option<String>,
    /// Return to the setting after this time
    #[arg(long, value_name = "SECONDS", requires = "level")]
    seconds: Option<u32>,
}

impl AdminLogLevelArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let request = SetLogLevel {
            level: self.level,
            seconds: self.seconds,
        };
        let reply = remote.client.call(request).await?;
        remote.output.result(&reply, |reply: &LogLevelReply| {
            let level = safe(&reply.level).into_owned();
            if reply.level == reply.setting {
                level
            } else {
                format!("{level} (the setting is {})", safe(&reply.setting))
            }
        })
    }
}

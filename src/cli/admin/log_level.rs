//! `haul admin log-level`

use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{LogLevelReply, SetLogLevel};

/// Show what the server logs, or have it log something else for a while
///
/// It lasts for `--seconds`, or until the server reads its settings again or is started anew.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    haul admin log-level\n  \
    haul admin log-level debug --seconds 600\n  \
    haul admin log-level info,haul::server=debug")]
pub(super) struct AdminLogLevelArgs {
    /// As the setting `log.level`: error, warn, info, debug or trace, or more after commas
    level: Option<String>,
    /// Back to the setting after so long
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

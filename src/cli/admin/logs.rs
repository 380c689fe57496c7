//! `haul admin logs`

use clap::{Args, ValueEnum};

use crate::cli::message_format::in_colour;
use crate::cli::output::{print, safe_json};
use crate::cli::reconnect_notice::ReconnectNotice;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{LogLevel, Logs};
use crate::telemetry::format_for_people;

/// Show the last lines of the server's log, and with -f new ones
///
/// The server sends only the lines that match the options. With `--json` each line is the object of
/// the log, with an increasing number `line`. After a lost connection the command reconnects, and
/// prints no line twice. Ctrl-C ends it.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdminLogsArgs {
    /// Print new lines as they are written
    #[arg(long, short)]
    follow: bool,
    /// The number of earlier lines
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 20)]
    last: u32,
    /// Show only lines about sessions of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Show only lines about this command, such as `put` or `login`
    #[arg(long, value_name = "CMD")]
    cmd: Option<String>,
    /// Show only lines about this absolute path and paths below it
    #[arg(long)]
    path: Option<String>,
    /// Show only lines of this level or a more severe one
    #[arg(long)]
    level: Option<MinimumLevel>,
    /// Show only lines with this code in `event`
    #[arg(long, value_name = "CODE")]
    event: Option<String>,
    /// Show only lines about this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MinimumLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl AdminLogsArgs {
    pub(in crate::cli) fn is_following(&self) -> bool {
        self.follow
    }

    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let colour = in_colour(remote.output);
        let mut lines = remote.session.logs(self.request());
        let mut waits = ReconnectNotice::for_session(remote, lines.progress());
        loop {
            // Kept while a line is said: what it waits for is not to begin anew.
            let mut next = std::pin::pin!(lines.next());
            let line = loop {
                tokio::select! {
                    biased;
                    note = waits.next() => remote.output.note(&note),
                    line = &mut next => break line?,
                }
            };
            let Some(line) = line else {
                return Ok(());
            };
            match format_for_people(&line, colour) {
                Some(text) if !remote.output.is_json() => print(&text)?,
                _ => print(&safe_json(&line))?,
            }
        }
    }

    fn request(self) -> Logs {
        Logs {
            follow: self.follow,
            last: Some(self.last),
            since: None,
            user: self.user,
            command: self.cmd,
            path: self.path,
            level: self.level.map(|level| match level {
                MinimumLevel::Error => LogLevel::Error,
                MinimumLevel::Warn => LogLevel::Warn,
                MinimumLevel::Info => LogLevel::Info,
                MinimumLevel::Debug => LogLevel::Debug,
                MinimumLevel::Trace => LogLevel::Trace,
            }),
            event: self.event,
            session: self.session,
        }
    }
}

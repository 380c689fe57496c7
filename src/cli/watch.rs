//! `haul watch`

use clap::Args;

use crate::cli::message_format::Style;
use crate::cli::output::{print, print_json};
use crate::cli::reconnect_notice::ReconnectNotice;
use crate::cli::remote_session::RemoteSession;
use crate::client::EventSubscription;
use crate::protocol::Event;

/// Show what changes below a path, as it changes
///
/// One line for each file or directory that is written, made, moved or removed, by whom; with
/// `--json` an object, at once, for a program to act on. If more has changed than could be told a
/// line with `overflow` says so: look again then. If the connection is lost it is made anew, and
/// nothing is missed meanwhile. Ctrl-C ends it.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// A file or directory on the server
    #[arg(default_value = ".")]
    path: String,
    /// Begin with the changes after the one with this number, which `--json` shows as `seq`
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

impl WatchArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let style = Style::new(remote.output, "");
        let mut live =
            EventSubscription::new(remote.session.clone()).watching(&self.path, self.since);
        let mut waits = ReconnectNotice::for_session(remote, live.progress());
        loop {
            // Kept while a line is said: what it waits for is not to begin anew.
            let mut next = std::pin::pin!(live.next());
            let event = loop {
                tokio::select! {
                    biased;
                    note = waits.next() => remote.output.note(&note),
                    event = &mut next => break event?,
                }
            };
            let Event::Changed(changed) = event else {
                continue;
            };
            if remote.output.is_json() {
                print_json(&Event::Changed(changed))?;
            } else {
                print(&style.change(&changed))?;
            }
        }
    }
}

//! `haul watch`

use clap::Args;

use crate::cli::message_format::Style;
use crate::cli::output::{print, print_json};
use crate::cli::reconnect_notice::ReconnectNotice;
use crate::cli::remote_session::RemoteSession;
use crate::client::EventSubscription;
use crate::protocol::Event;

/// Print changes below a path as they happen
///
/// Each line names a file or directory that is written, created, moved or removed, and the user who
/// did it; with `--json` it is an object. `overflow` means that the server could not report all
/// changes: read the directory again. After a lost connection the command reconnects and prints the
/// changes that it missed. Ctrl-C ends it.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// A file or directory on the server
    #[arg(default_value = ".")]
    path: String,
    /// Begin after the change with this number, which `--json` prints as `seq`
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

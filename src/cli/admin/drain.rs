//! `haul admin drain`

use std::time::Duration;

use clap::Args;

use crate::cli::output::count;
use crate::cli::remote_session::RemoteSession;
use crate::protocol;
use crate::protocol::DrainReply;

/// Stop the server once what runs has ended
///
/// As on SIGTERM: no new connection and no new request is taken, what runs may end within
/// `limits.drain_timeout` or `--seconds`, then the rest is cut off and the server ends with 0.
/// A service manager may start it again.
#[derive(Debug, Args)]
pub(super) struct AdminDrainArgs {
    /// For so long what runs may go on, rather than for `limits.drain_timeout`
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u32>,
}

impl AdminDrainArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let reply = remote
            .client
            .call(protocol::Drain {
                seconds: self.seconds,
            })
            .await?;
        remote.output.result(&reply, |reply: &DrainReply| {
            let patience = Duration::from_millis(reply.within_ms);
            let sessions = count(reply.sessions, "session");
            format!("it stops, {sessions} may end within {patience:?}")
        })
    }
}

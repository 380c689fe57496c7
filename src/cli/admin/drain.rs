//! `haul admin drain`

use std::time::Duration;

use clap::Args;

use crate::cli::output::count;
use crate::cli::remote_session::RemoteSession;
use crate::protocol;
use crate::protocol::DrainReply;

/// Stop the server after the running requests have ended
///
/// As on SIGTERM, the server accepts no new connections and requests. Running requests may end within
/// `limits.drain_timeout` or `--seconds`; the others are cancelled, and the server exits with 0. A
/// service manager may start it again.
#[derive(Debug, Args)]
pub(super) struct AdminDrainArgs {
    /// The time for running requests, in place of `limits.drain_timeout`
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
            format!("the server stops; {sessions} may end within {patience:?}")
        })
    }
}

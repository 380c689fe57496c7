//! `haul who`

use clap::Args;

use crate::cli::output::{local_time, safe};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::Present;

/// List the connected users
#[derive(Debug, Args)]
pub(super) struct WhoArgs {}

impl WhoArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let who = remote.client.who().await?;
        remote.output.list(&who.users, || present(&who.users))?;
        if who.more {
            remote
                .output
                .note("more users are connected than this list shows");
        }
        Ok(())
    }
}

/// For people.
pub(super) fn present(users: &[Present]) -> String {
    let row = |present: &Present| {
        [
            safe(&present.user).into_owned(),
            present.sessions.to_string(),
            local_time(present.since),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    table(["USER", "SESSIONS", "SINCE"], &rows)
}

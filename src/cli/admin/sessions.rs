//! `haul admin sessions`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::{SessionEntry, TransferEntry};

/// List the sessions and their transfers
#[derive(Debug, Args)]
pub(super) struct AdminSessionsArgs {
    /// List only the sessions of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl AdminSessionsArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut sessions = remote.client.sessions().await?;
        if let Some(user) = &self.user {
            sessions.retain(|session| session.user == *user);
        }
        remote.output.list(&sessions, || present(&sessions))
    }
}

/// For people: the sessions, and below them what they have under way.
fn present(sessions: &[SessionEntry]) -> String {
    let row = |entry: &SessionEntry| {
        [
            safe(&entry.session).into_owned(),
            safe(&entry.user).into_owned(),
            safe(&entry.peer).into_owned(),
            if entry.secure { "tls" } else { "plain" }.into(),
            local_time(entry.since),
            entry.running.to_string(),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    let mut text = table(
        ["SESSION", "USER", "FROM", "BY", "SINCE", "TRANSFERS"],
        &rows,
    );
    let transfers = sessions.iter().flat_map(|entry| {
        let each = entry.transfers.iter();
        each.map(|transfer| of_transfer(&entry.session, transfer))
    });
    let rows: Vec<_> = transfers.collect();
    if !rows.is_empty() {
        text.push_str("\n\n");
        text.push_str(&table(
            ["SESSION", "CMD", "AT", "OF", "DONE", "RATE", "PATH"],
            &rows,
        ));
    }
    text
}

fn of_transfer(session: &str, transfer: &TransferEntry) -> [String; 7] {
    [
        safe(session).into_owned(),
        safe(&transfer.cmd).into_owned(),
        size(transfer.offset),
        transfer.size.map_or("unknown".into(), size),
        percent(transfer),
        format!("{}/s", size(transfer.rate)),
        safe(&transfer.path).into_owned(),
    ]
}

fn percent(transfer: &TransferEntry) -> String {
    let done = u128::from(transfer.offset) * 100;
    match transfer.size {
        Some(size @ 1..) => format!("{} %", done / u128::from(size)),
        _ => String::new(),
    }
}

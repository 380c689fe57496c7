//! `haul admin users`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::{FolderView, UserEntry};

/// List the users with their used space and their limits
///
/// The server counts the used space of a home when it is first used after a start.
#[derive(Debug, Args)]
pub(super) struct AdminUsersArgs {}

impl AdminUsersArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let users = remote.client.users().await?;
        let is_uncounted = |user: &UserEntry| user.used.is_none() || user.files.is_none();
        let has_uncounted = users.iter().any(is_uncounted);
        remote.output.list(&users, || {
            let rows: Vec<_> = users.iter().map(row).collect();
            table(
                [
                    "USER", "ROLE", "STATE", "SESSIONS", "USED", "OF", "FILES", "SINCE", "FOLDERS",
                ],
                &rows,
            )
        })?;
        if has_uncounted && !remote.output.is_json() {
            remote.output.note(
                "a home that is not counted has not been used since the server was started; the \
                 server counts it at its first use",
            );
        }
        Ok(())
    }
}

fn row(user: &UserEntry) -> [String; 9] {
    let unknown = || "not counted".to_owned();
    let folder = |view: &FolderView| format!("{} ({})", view.name, view.rights.join(","));
    let mut folders: Vec<_> = user.folders.iter().map(folder).collect();
    if user.more {
        folders.push("and more".to_owned());
    }
    [
        safe(&user.user).into_owned(),
        if user.admin { "admin" } else { "user" }.into(),
        if user.disabled { "disabled" } else { "" }.into(),
        user.sessions.to_string(),
        user.used.map_or_else(unknown, size),
        user.limit.map_or("-".into(), size),
        user.files.map_or_else(unknown, |files| files.to_string()),
        local_time(user.created),
        safe(&folders.join(" ")).into_owned(),
    ]
}

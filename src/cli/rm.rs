//! `haul rm`

use clap::Args;
use serde::Serialize;

use crate::cli::output::print_json;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{ErrorCode, RmReply};

/// Remove files and directories
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The paths to remove
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Remove directories with all that they hold
    #[arg(long, short, visible_short_alias = 'R')]
    recursive: bool,
    /// Do not mind if there is nothing of that name
    #[arg(long, short)]
    force: bool,
}

#[derive(Serialize)]
struct RemovedPath<'a> {
    path: &'a str,
    removed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

impl RmArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut total = 0;
        for path in &self.paths {
            let reply = match remote.client.rm(path, self.recursive).await {
                Err(error) if self.force && error.code() == Some(ErrorCode::NotFound) => {
                    RmReply::default()
                }
                Ok(RmReply {
                    removed: 0,
                    left: 0,
                }) => anyhow::bail!("the server removed nothing at {path}"),
                outcome => outcome?,
            };
            let RmReply { removed, left } = reply;
            total += removed;
            if remote.output.is_json() {
                let left = (left > 0).then_some(left);
                print_json(&RemovedPath {
                    path,
                    removed,
                    left,
                })?;
            } else if left > 0 {
                let entries = if left == 1 { "entry" } else { "entries" };
                remote.output.note(&format!(
                    "{path} is out of sight, but the server could not delete {left} {entries} of \
                     it; it tries again from time to time"
                ));
            }
        }
        if total > 1 && !remote.output.is_json() {
            let entries = if total == 1 { "entry" } else { "entries" };
            remote.output.note(&format!("{total} {entries} removed"));
        }
        Ok(())
    }
}

//! `haul rm`

use clap::Args;
use serde::Serialize;

use crate::cli::exit::NoMatch;
use crate::cli::expand::expand_one;
use crate::cli::failures::Failures;
use crate::cli::output::print_json;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{ErrorCode, RmReply};

/// Remove files and directories
///
/// A path may have the wildcards `*`, `?` and `[...]`; quote them from your shell. A backslash before
/// such a character makes it part of the name.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The files and directories on the server
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Remove directories with their content
    #[arg(long, short, visible_short_alias = 'R')]
    recursive: bool,
    /// Ignore paths that do not exist
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
        let mut failures = Failures::new(remote.output, "rm", self.paths.len());
        let mut total = 0;
        for pattern in &self.paths {
            let paths = match expand_one(&remote.client, pattern).await {
                Err(error) if self.force && error.is::<NoMatch>() => continue,
                Err(error) => {
                    failures.add(error)?;
                    continue;
                }
                Ok(paths) => paths,
            };
            if paths.len() > 1 {
                failures.expect_several();
            }
            for path in &paths {
                match self.remove(remote, &path.path).await {
                    Ok(removed) => total += removed,
                    Err(error) => failures.add(error)?,
                }
            }
        }
        if total > 1 && !remote.output.is_json() {
            remote.output.note(&format!("{total} entries removed"));
        }
        failures.finish()
    }

    /// Removes one path, and returns how many entries are deleted.
    async fn remove(&self, remote: &RemoteSession, path: &str) -> anyhow::Result<u64> {
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
                "{path} is removed, but the server could not delete {left} {entries} of it yet; it \
                 tries again"
            ));
        }
        Ok(removed)
    }
}

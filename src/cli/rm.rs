//! `haul rm`

use clap::Args;
use serde::Serialize;

use super::output::print_json;
use super::remote::Remote;
use crate::protocol::ErrorCode;

/// Remove files and directories
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// What to remove
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
struct Removed<'a> {
    path: &'a str,
    removed: u64,
}

impl Rm {
    pub(super) async fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let mut total = 0;
        for path in &self.paths {
            let removed = match remote.client.rm(path, self.recursive).await {
                Err(error) if self.force && error.code() == Some(ErrorCode::NotFound) => 0,
                Ok(0) => anyhow::bail!("the server removed nothing at {path}"),
                outcome => outcome?,
            };
            total += removed;
            if remote.output.is_json() {
                let removed = Removed { path, removed };
                print_json(&removed)?;
            }
        }
        if total > 1 && !remote.output.is_json() {
            let entries = if total == 1 { "entry" } else { "entries" };
            remote.output.note(&format!("{total} {entries} removed"));
        }
        Ok(())
    }
}

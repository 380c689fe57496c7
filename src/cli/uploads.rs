//! `haul uploads`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::ResumableUpload;

/// List uploads that were cut off and can go on
///
/// The same `put` goes on with one; the server drops it when its time is over. What it holds
/// counts against the quota until then.
#[derive(Debug, Args)]
pub(super) struct UploadsArgs {}

impl UploadsArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let uploads = remote.client.uploads().await?;
        if uploads.is_empty() {
            // No headline over nothing, and no object for a program.
            return Ok(());
        }
        remote.output.list(&uploads, || {
            let row = |upload: &ResumableUpload| {
                [
                    safe(&upload.upload).into_owned(),
                    size(upload.offset),
                    upload.size.map_or("?".into(), size),
                    local_time(upload.expires),
                    safe(&upload.path).into_owned(),
                ]
            };
            let rows: Vec<_> = uploads.iter().map(row).collect();
            table(["UPLOAD", "HAS", "OF", "KEPT UNTIL", "PATH"], &rows)
        })
    }
}

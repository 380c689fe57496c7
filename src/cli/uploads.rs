//! `haul uploads`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::table::table;
use crate::protocol::ResumableUpload;

/// List interrupted uploads that can be resumed
///
/// The same `put` resumes an upload. The server deletes an upload that is not resumed in time. Until
/// then it counts towards the quota.
#[derive(Debug, Args)]
pub(super) struct UploadsArgs {}

impl UploadsArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let uploads = remote.client.uploads().await?;
        if uploads.is_empty() {
            // Neither a headline without rows nor a JSON object.
            return Ok(());
        }
        remote.output.list(&uploads, || {
            let row = |upload: &ResumableUpload| {
                [
                    safe(&upload.upload).into_owned(),
                    size(upload.offset),
                    upload.size.map_or("unknown".into(), size),
                    local_time(upload.expires),
                    safe(&upload.path).into_owned(),
                ]
            };
            let rows: Vec<_> = uploads.iter().map(row).collect();
            table(["UPLOAD", "HAS", "OF", "KEPT UNTIL", "PATH"], &rows)
        })
    }
}

//! `haul stat`

use clap::Args;

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{Kind, StatReply};

/// Show the size, time, version and digest of files and directories
///
/// The permission bits are octal digits such as 640. With `--json` they are the number of the wire: 416.
#[derive(Debug, Args)]
pub(super) struct StatArgs {
    /// Files and directories
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl StatArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        for path in &self.paths {
            let stat = remote.client.stat(path).await?;
            remote.output.result(&stat, describe)?;
        }
        Ok(())
    }
}

fn describe(stat: &StatReply) -> String {
    let mut lines = vec![format!("path:     {}", safe(&stat.path))];
    match stat.entry.kind {
        Kind::Dir => lines.push("kind:     directory".into()),
        Kind::File => {
            let bytes = stat.entry.size;
            lines.push("kind:     file".into());
            lines.push(format!("size:     {} ({bytes} bytes)", size(bytes)));
        }
    }
    lines.push(format!("modified: {}", local_time(stat.entry.modified)));
    if let Some(mode) = stat.entry.mode {
        lines.push(format!("mode:     {mode}"));
    }
    if let Some(version) = &stat.entry.version {
        lines.push(format!("version:  {}", safe(version)));
    }
    if let Some(digest) = &stat.entry.digest {
        lines.push(format!("digest:   {digest}"));
    }
    lines.join("\n")
}

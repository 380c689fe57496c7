//! `haul df`

use clap::Args;

use crate::cli::output::size;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::DfReply;

/// Show the used and the available space
///
/// The figures are those of your home, or in the shell those of the current shared folder.
#[derive(Debug, Args)]
pub(super) struct DfArgs {
    /// Print sizes as exact numbers of bytes
    #[arg(long, short)]
    bytes: bool,
}

impl DfArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let df = remote.client.df().await?;
        remote.output.result(&df, |df| self.describe(df))
    }

    fn describe(&self, df: &DfReply) -> String {
        let bytes = |bytes: u64| {
            if self.bytes {
                format!("{bytes} bytes")
            } else {
                size(bytes)
            }
        };
        let of =
            |limit: Option<String>| limit.map_or(String::new(), |limit| format!(" of {limit}"));
        format!(
            "used:  {}{}, {}{}\nfree:  {} on the server's disk",
            bytes(df.used),
            of(df.limit.map(bytes)),
            entries(df.files),
            of(df.files_limit.map(|files| files.to_string())),
            bytes(df.free),
        )
    }
}

fn entries(number: u64) -> String {
    match number {
        1 => "1 file or directory".into(),
        number => format!("{number} files and directories"),
    }
}

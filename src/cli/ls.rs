//! `haul ls`

use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};

use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{Entry, ErrorCode, Kind};

/// Names that are printed together, where nothing is sorted.
const BATCH: usize = 1000;

/// List directories
///
/// On a terminal with size and time, otherwise one name per line.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four flags of a command line"
)]
pub(super) struct LsArgs {
    /// Directories and files; the current directory if none is given
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Print size and time wherever the output goes
    #[arg(long, short, conflicts_with = "names")]
    long: bool,
    /// Print only names, one per line
    #[arg(long, short = '1')]
    names: bool,
    /// Print sizes as exact numbers of bytes
    #[arg(long, short)]
    bytes: bool,
    /// Print entries in the order in which the server reads them; needs no memory for large
    /// directories
    #[arg(long, short = 'U')]
    unsorted: bool,
}

impl LsArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let paths = match &*self.paths {
            [] => &[String::from(".")],
            paths => paths,
        };
        for (index, path) in paths.iter().enumerate() {
            if paths.len() > 1 && !remote.output.is_json() {
                let gap = if index > 0 { "\n" } else { "" };
                remote
                    .output
                    .result(&(), |()| format!("{gap}{}:", safe(path)))?;
            }
            self.list(remote, path).await?;
        }
        Ok(())
    }

    async fn list(&self, remote: &RemoteSession, path: &str) -> anyhow::Result<()> {
        if self.unsorted {
            let batches = remote.client.entries(path).try_chunks(BATCH);
            let mut batches = std::pin::pin!(batches);
            while let Some(batch) = batches.next().await {
                match batch {
                    Ok(entries) => self.print(remote, &entries)?,
                    Err(error) => {
                        self.print(remote, &error.0)?;
                        return Err(error.1.into());
                    }
                }
            }
            return Ok(());
        }
        match remote.client.ls(path).await {
            Ok(entries) => self.print(remote, &entries),
            Err(error) if error.code() == Some(ErrorCode::NotADirectory) => {
                self.print_file(remote, path).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A file that was named stands for itself, under the path by which it was named.
    async fn print_file(&self, remote: &RemoteSession, path: &str) -> anyhow::Result<()> {
        let stat = remote.client.stat(path).await?;
        let entry = Entry {
            name: path.into(),
            ..stat.entry
        };
        self.print(remote, &[entry])
    }

    fn print(&self, remote: &RemoteSession, entries: &[Entry]) -> anyhow::Result<()> {
        let long = self.long || (remote.output.terminal && !self.names);
        if !long {
            return remote.output.results(entries, named);
        }
        let sizes: Vec<_> = entries.iter().map(|entry| self.size(entry)).collect();
        let width = sizes.iter().map(String::len).max().unwrap_or(0);
        let mut sizes = sizes.iter();
        remote.output.results(entries, |entry| {
            let size = sizes.next().map_or("", String::as_str);
            let time = local_time(entry.modified);
            format!("{size:>width$}  {time}  {}", named(entry))
        })
    }

    fn size(&self, entry: &Entry) -> String {
        match entry.kind {
            Kind::Dir => "-".into(),
            Kind::File if self.bytes => entry.size.to_string(),
            Kind::File => size(entry.size),
        }
    }
}

/// The name, with a slash behind that of a directory.
fn named(entry: &Entry) -> String {
    let slash = if entry.kind == Kind::Dir { "/" } else { "" };
    format!("{}{slash}", safe(&entry.name))
}

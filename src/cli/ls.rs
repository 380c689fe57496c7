//! `haul ls`

use std::cmp::Reverse;

use clap::{ArgAction, Args};
use futures::stream::{StreamExt, TryStreamExt};

use crate::cli::expand::{RemotePath, expand};
use crate::cli::failures::Failures;
use crate::cli::output::{local_time, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::client::join;
use crate::protocol::{Entry, ErrorCode, Kind};

/// Names that are printed together if they are not sorted.
const BATCH: usize = 1000;

/// List files and directories
///
/// A terminal shows sizes and times; otherwise each line is a name. A path may have the wildcards `*`,
/// `?` and `[...]`; quote them from your shell. A backslash before such a character makes it part of
/// the name.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent flags of a command line"
)]
pub(super) struct LsArgs {
    /// Directories and files; the default is the current directory
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Print the size and time of each entry
    #[arg(long, short, conflicts_with = "names")]
    long: bool,
    /// Print only names, one per line
    #[arg(long, short = '1')]
    names: bool,
    /// Print sizes as exact numbers of bytes
    #[arg(long, short, overrides_with = "human")]
    bytes: bool,
    /// Print sizes such as 1.5 MiB, which is the default
    #[arg(
        long = "human-readable",
        short = 'h',
        id = "human",
        overrides_with = "bytes"
    )]
    _human: bool,
    /// Sort by time, the newest entry first
    #[arg(long, short = 't', conflicts_with = "unsorted")]
    time: bool,
    /// Reverse the order
    #[arg(long, short, conflicts_with = "unsorted")]
    reverse: bool,
    /// Print entries in the server's order, which needs no memory for large directories
    #[arg(long, short = 'U')]
    unsorted: bool,
    /// List directories with their content, each under its path
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Accepted for habit: hidden entries are always listed
    #[arg(long = "all", short = 'a', hide = true)]
    _all: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl LsArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let paths = match &*self.paths {
            [] => vec![String::from(".")],
            paths => paths.to_vec(),
        };
        let mut failures = Failures::new(remote.output, "ls", paths.len());
        let found = expand(&remote.client, &paths, &mut failures).await?;
        if let ([_], [RemotePath { path, entry: None }]) = (&*paths, &*found)
            && !self.recursive
        {
            return self.list(remote, path).await.map(drop);
        }
        self.list_all(remote, found, paths.len(), &mut failures)
            .await?;
        failures.finish()
    }

    /// Lists the files first, then each directory under its path.
    async fn list_all(
        &self,
        remote: &RemoteSession,
        found: Vec<RemotePath>,
        given: usize,
        failures: &mut Failures,
    ) -> anyhow::Result<()> {
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for RemotePath { path, entry } in found {
            let entry = match entry {
                Some(entry) => entry,
                None => match remote.client.stat(&path).await {
                    Ok(stat) => stat.entry,
                    Err(error) => {
                        failures.add(error.into())?;
                        continue;
                    }
                },
            };
            match entry.kind {
                Kind::Dir => directories.push(path),
                Kind::File => files.push(Entry {
                    name: path,
                    ..entry
                }),
            }
        }
        self.sort(&mut files);
        self.print(remote, &files)?;
        let has_headings =
            self.recursive || given > 1 || directories.len() > 1 || !files.is_empty();
        let mut is_first = files.is_empty();
        // A stack, the next directory last.
        directories.reverse();
        while let Some(path) = directories.pop() {
            if has_headings && !remote.output.is_json() {
                let gap = if is_first { "" } else { "\n" };
                remote
                    .output
                    .result(&(), |()| format!("{gap}{}:", safe(&path)))?;
            }
            is_first = false;
            match self.list(remote, &path).await {
                Ok(below) if self.recursive => {
                    let below = below.into_iter().rev().map(|name| join(&path, &name));
                    directories.extend(below);
                }
                Ok(_) => {}
                Err(error) => failures.add(error)?,
            }
        }
        Ok(())
    }

    fn sort(&self, entries: &mut [Entry]) {
        if self.time {
            entries.sort_by_key(|entry| Reverse(entry.modified));
        }
        if self.reverse {
            entries.reverse();
        }
    }

    /// Lists a directory, or prints a file. Returns the names of the directories in it, as far as they
    /// are wanted.
    async fn list(&self, remote: &RemoteSession, path: &str) -> anyhow::Result<Vec<String>> {
        let mut below = Vec::new();
        if self.unsorted {
            let batches = remote.client.entries(path).try_chunks(BATCH);
            let mut batches = std::pin::pin!(batches);
            while let Some(batch) = batches.next().await {
                match batch {
                    Ok(entries) => {
                        self.print(remote, &entries)?;
                        below.extend(self.directories(&entries));
                    }
                    Err(error) => {
                        self.print(remote, &error.0)?;
                        return Err(error.1.into());
                    }
                }
            }
            return Ok(below);
        }
        match remote.client.ls(path).await {
            Ok(mut entries) => {
                self.sort(&mut entries);
                self.print(remote, &entries)?;
                Ok(self.directories(&entries).collect())
            }
            Err(error) if error.code() == Some(ErrorCode::NotADirectory) => {
                self.print_file(remote, path).await?;
                Ok(below)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn directories<'a>(&self, entries: &'a [Entry]) -> impl Iterator<Item = String> + use<'a> {
        let is_wanted = self.recursive;
        let directories = entries
            .iter()
            .filter(move |entry| is_wanted && entry.kind == Kind::Dir);
        directories.map(|entry| entry.name.clone())
    }

    /// Prints a file under the path by which it was named.
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

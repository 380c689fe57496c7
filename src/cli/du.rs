//! `haul du`

use clap::{ArgAction, Args};
use serde::Serialize;

use crate::cli::output::{Output, safe, size};
use crate::cli::remote_session::RemoteSession;
use crate::cli::tree_lines::{ListingVisitor, shown_path, visit_trees};
use crate::protocol::{Entry, Kind};

/// Print the bytes of directories with their content
///
/// Each directory follows those that it contains. The bytes are those of the files' content. A path may
/// have the wildcards `*`, `?` and `[...]`; quote them from your shell.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct DuArgs {
    /// Directories and files; the default is the current directory
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Print only the sum of each PATH
    #[arg(long, short, conflicts_with = "max_depth")]
    summarize: bool,
    /// Print directories at most N levels below PATH
    #[arg(long, short = 'd', value_name = "N")]
    max_depth: Option<usize>,
    /// Print exact numbers of bytes
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
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

impl DuArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut sums = DirectorySums {
            output: remote.output,
            max_depth: if self.summarize {
                Some(0)
            } else {
                self.max_depth
            },
            exact: self.bytes,
            open: Vec::new(),
        };
        visit_trees(remote, "du", &self.paths, &mut sums).await
    }
}

/// The sums of the directories that contain the current entry.
struct DirectorySums {
    output: Output,
    max_depth: Option<usize>,
    exact: bool,
    /// The root first.
    open: Vec<DirectorySum>,
}

/// The sum of a directory so far.
#[derive(Debug, Serialize)]
struct DirectorySum {
    path: String,
    bytes: u64,
    files: u64,
}

impl DirectorySums {
    fn open(&mut self, path: String) {
        self.open.push(DirectorySum {
            path,
            bytes: 0,
            files: 0,
        });
    }

    /// Ends directories until `depth` are open, and prints them.
    fn close_until(&mut self, depth: usize) -> anyhow::Result<()> {
        while self.open.len() > depth {
            let Some(sum) = self.open.pop() else { break };
            if let Some(parent) = self.open.last_mut() {
                parent.bytes += sum.bytes;
                parent.files += sum.files;
            }
            if self.max_depth.is_none_or(|max| self.open.len() <= max) {
                self.output.result(&sum, |sum| self.line(sum))?;
            }
        }
        Ok(())
    }

    fn line(&self, sum: &DirectorySum) -> String {
        let bytes = if self.exact {
            sum.bytes.to_string()
        } else {
            size(sum.bytes)
        };
        format!("{bytes:>10}  {}", safe(&sum.path))
    }
}

impl ListingVisitor for DirectorySums {
    fn begin(&mut self, path: &str, entry: &Entry) -> anyhow::Result<()> {
        self.open(path.to_owned());
        if let (Kind::File, Some(sum)) = (entry.kind, self.open.last_mut()) {
            (sum.bytes, sum.files) = (entry.size, 1);
        }
        Ok(())
    }

    fn visit(&mut self, root: &str, entry: &Entry) -> anyhow::Result<()> {
        let depth = entry.name.split('/').count();
        self.close_until(depth)?;
        match (entry.kind, self.open.last_mut()) {
            (Kind::Dir, _) => self.open(shown_path(root, &entry.name)),
            (Kind::File, Some(sum)) => {
                sum.bytes += entry.size;
                sum.files += 1;
            }
            (Kind::File, None) => {}
        }
        Ok(())
    }

    fn end(&mut self, _path: &str) -> anyhow::Result<()> {
        self.close_until(0)
    }
}

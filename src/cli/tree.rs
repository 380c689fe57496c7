//! `haul tree`

use clap::Args;

use crate::cli::output::{Output, count, safe};
use crate::cli::remote_session::RemoteSession;
use crate::cli::tree_lines::{ListingVisitor, shown_path, visit_trees};
use crate::protocol::{Entry, Kind};

/// Print the names in directories, indented by level
///
/// A path may have the wildcards `*`, `?` and `[...]`; quote them from your shell.
#[derive(Debug, Args)]
pub(super) struct TreeArgs {
    /// Directories; the default is the current directory
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Print entries at most N levels below PATH
    #[arg(long = "level", short = 'L', value_name = "N")]
    level: Option<usize>,
    /// Print only directories
    #[arg(long, short)]
    directories: bool,
}

impl TreeArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut printer = TreePrinter {
            output: remote.output,
            level: self.level,
            only_directories: self.directories,
            found: (0, 0),
        };
        visit_trees(remote, "tree", &self.paths, &mut printer).await?;
        let (directories, files) = printer.found;
        let directories = match directories {
            1 => "1 directory".to_owned(),
            number => format!("{number} directories"),
        };
        if !remote.output.is_json() {
            remote
                .output
                .note(&format!("{directories}, {}", count(files, "file")));
        }
        Ok(())
    }
}

struct TreePrinter {
    output: Output,
    level: Option<usize>,
    only_directories: bool,
    /// Directories and files below the roots.
    found: (u64, u64),
}

impl TreePrinter {
    fn print(&self, entry: &Entry, root: &str, indented: String) -> anyhow::Result<()> {
        if self.output.is_json() {
            let name = shown_path(root, &entry.name);
            let entry = Entry {
                name,
                ..entry.clone()
            };
            return self.output.result(&entry, |_| String::new());
        }
        self.output.result(&(), |()| indented)
    }
}

impl ListingVisitor for TreePrinter {
    fn begin(&mut self, path: &str, entry: &Entry) -> anyhow::Result<()> {
        let slash = if entry.kind == Kind::Dir && !path.ends_with('/') {
            "/"
        } else {
            ""
        };
        if self.output.is_json() {
            return Ok(());
        }
        self.output
            .result(&(), |()| format!("{}{slash}", safe(path)))
    }

    fn visit(&mut self, root: &str, entry: &Entry) -> anyhow::Result<()> {
        match entry.kind {
            Kind::Dir => self.found.0 += 1,
            Kind::File => self.found.1 += 1,
        }
        let (depth, name) = match entry.name.rsplit_once('/') {
            Some((parents, name)) => (parents.split('/').count() + 1, name),
            None => (1, &*entry.name),
        };
        let is_shown = self.level.is_none_or(|level| depth <= level)
            && (entry.kind == Kind::Dir || !self.only_directories);
        if !is_shown {
            return Ok(());
        }
        let slash = if entry.kind == Kind::Dir { "/" } else { "" };
        let indented = format!("{:indent$}{}{slash}", "", safe(name), indent = 2 * depth);
        self.print(entry, root, indented)
    }

    fn end(&mut self, _path: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

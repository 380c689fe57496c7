//! The entries of trees on the server for `du`, `find` and `tree`, as they come.

use crate::cli::expand::expand_names;
use crate::cli::failures::Failures;
use crate::cli::remote_session::RemoteSession;
use crate::client::{ClientError, join};
use crate::protocol::{Entry, Kind};

/// What looks at the entries of a tree.
pub(super) trait ListingVisitor {
    /// A root, as the user named it. The entries of a directory follow.
    ///
    /// # Errors
    /// If its result cannot be printed.
    fn begin(&mut self, path: &str, entry: &Entry) -> anyhow::Result<()>;

    /// An entry below the root, whose name is its path relative to it. A directory comes right before
    /// its content.
    ///
    /// # Errors
    /// If its result cannot be printed.
    fn visit(&mut self, root: &str, entry: &Entry) -> anyhow::Result<()>;

    /// The end of a root.
    ///
    /// # Errors
    /// If its result cannot be printed.
    fn end(&mut self, path: &str) -> anyhow::Result<()>;
}

/// Shows the trees at `paths`, which may have wildcards; the default is the current directory. Memory is
/// bounded by the depth of a tree.
pub(super) async fn visit_trees(
    remote: &RemoteSession,
    command: &'static str,
    paths: &[String],
    visitor: &mut impl ListingVisitor,
) -> anyhow::Result<()> {
    let here = [String::from(".")];
    let paths = if paths.is_empty() { &here } else { paths };
    let mut failures = Failures::new(remote.output, command, paths.len());
    for path in expand_names(&remote.client, paths, &mut failures).await? {
        if let Err(error) = visit_tree(remote, &path, visitor).await {
            failures.add(error)?;
        }
    }
    failures.finish()
}

async fn visit_tree(
    remote: &RemoteSession,
    path: &str,
    visitor: &mut impl ListingVisitor,
) -> anyhow::Result<()> {
    let root = remote.client.stat(path).await?.entry;
    visitor.begin(path, &root)?;
    if root.kind == Kind::Dir {
        if !remote.client.has_feature("recursive") {
            return Err(ClientError::MissingFeature("list whole trees").into());
        }
        let mut entries = remote.session.tree_entries(path, false);
        while let Some(entry) = entries.next().await? {
            visitor.visit(path, &entry)?;
        }
    }
    visitor.end(path)
}

/// The path of an entry as a person would type it. Nothing stands for the current directory.
pub(super) fn shown_path(root: &str, name: &str) -> String {
    if root == "." {
        name.to_owned()
    } else {
        join(root, name)
    }
}

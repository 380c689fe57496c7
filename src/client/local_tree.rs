//! Paths below a local root, resolved beneath a descriptor of it.
//!
//! Another process may replace a directory of the tree by a link at any time. Every entry is therefore
//! changed by its name in a descriptor of its directory, and no link below the root is followed on the
//! way to that descriptor. The root itself was named by the user and may be a link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

const DIRECTORY_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open root of a local tree.
#[derive(Debug)]
pub(crate) struct LocalTree {
    root: OwnedFd,
}

/// An entry of a tree, which need not exist.
#[derive(Debug)]
pub(crate) struct TreePath<'a> {
    pub(crate) tree: &'a LocalTree,
    /// The path relative to the root.
    pub(crate) relative: String,
    /// The path for messages.
    pub(crate) display: PathBuf,
}

/// The directory of an entry, and the name of the entry in it.
#[derive(Debug)]
pub(crate) struct LocalParent<'a> {
    directory: OwnedFd,
    name: &'a str,
}

impl LocalTree {
    /// Opens the root, which may be a link to a directory.
    ///
    /// # Errors
    /// An error of the system.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, DIRECTORY_FLAGS, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens the directory of the entry at `relative`, a path with `/` between its components.
    ///
    /// # Errors
    /// An error of the system, or of a path that leads out of the tree or through a link.
    pub(crate) fn parent_of<'a>(&self, relative: &'a str) -> io::Result<LocalParent<'a>> {
        let (parent, name) = relative.rsplit_once('/').unwrap_or((".", relative));
        if matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = match openat2(&self.root, parent, DIRECTORY_FLAGS, Mode::empty(), flags) {
            // Old kernels do not have the call, and some sandboxes forbid it.
            Err(Errno::NOSYS | Errno::PERM) => open_by_components(self.root.as_fd(), parent)?,
            Err(Errno::LOOP) => return Err(replaced_by_link()),
            opened => opened?,
        };
        Ok(LocalParent { directory, name })
    }
}

impl TreePath<'_> {
    /// See [`LocalTree::parent_of`].
    pub(crate) fn parent(&self) -> io::Result<LocalParent<'_>> {
        self.tree.parent_of(&self.relative)
    }
}

impl LocalParent<'_> {
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }
}

/// As `openat2` without links beneath `root`.
fn open_by_components(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = DIRECTORY_FLAGS | OFlags::NOFOLLOW;
    let mut directory = openat(root, ".", flags, Mode::empty())?;
    for component in path.split('/').filter(|component| *component != ".") {
        if matches!(component, "" | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        directory = match openat(&directory, component, flags, Mode::empty()) {
            // With both flags the system does not distinguish a link from a file.
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(replaced_by_link()),
            opened => opened?,
        };
    }
    Ok(directory)
}

fn replaced_by_link() -> io::Error {
    io::Error::other("a directory of the path was replaced by a link")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_through_a_link_or_out_of_the_tree() {
        let place = tempfile::tempdir().expect("a directory");
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).expect("made");
        fs::create_dir_all(outside.join("b")).expect("made");
        symlink(&outside, root.join("link")).expect("linked");
        symlink("a", root.join("inner")).expect("linked");
        let tree = LocalTree::open(&root).expect("open");
        for path in ["f", "a/f", "a/b/f", "link"] {
            tree.parent_of(path).expect(path);
        }
        for path in [
            "link/f",
            "link/b/f",
            "inner/f",
            "../f",
            "a/../../f",
            "a/..",
            "/f",
            "",
        ] {
            assert!(tree.parent_of(path).is_err(), "{path}");
        }
        for parent in [".", "a", "a/b"] {
            open_by_components(tree.root.as_fd(), parent).expect(parent);
        }
        for parent in ["link", "link/b", "inner", "..", "a/..", "/a"] {
            assert!(
                open_by_components(tree.root.as_fd(), parent).is_err(),
                "{parent}"
            );
        }
    }

    #[test]
    fn an_open_parent_stays_the_same_directory_after_a_swap() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path();
        fs::create_dir(root.join("a")).expect("made");
        let tree = LocalTree::open(root).expect("open");
        let parent = tree.parent_of("a/f").expect("open");
        fs::rename(root.join("a"), root.join("moved")).expect("moved");
        symlink("/", root.join("a")).expect("linked");
        rustix::fs::mkdirat(parent.directory(), parent.name(), Mode::RWXU).expect("made");
        assert!(root.join("moved/f").is_dir());
        let error = tree.parent_of("a/f").expect_err("a link");
        assert!(error.to_string().contains("replaced by a link"), "{error}");
    }
}

//! The listing of a local tree, in the order of the server's recursive listing.
//!
//! The scan holds the names of the directories between the root and the current entry, and a
//! descriptor of each, through which it opens what is in them: a link that takes the place of a
//! directory meanwhile is not followed. It blocks, and runs on a blocking thread.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::client::ClientError;
use crate::client::sync::entry::{ListedItem, SyncEntry, WithheldReason};
use crate::client::sync::filter::PathFilter;
use crate::client::sync::names::{is_portable_name, is_unfinished_download};
use crate::protocol::{FileMode, Kind};

/// The deepest level that is scanned. No server has as many.
const MAX_DEPTH: usize = 100;

/// What happens to symbolic links of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkPolicy {
    /// They are skipped.
    #[default]
    Skip,
    /// Their targets are transferred.
    Follow,
}

/// How a local tree is listed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ScanOptions {
    pub(crate) links: LinkPolicy,
    /// Do not enter other file systems.
    pub(crate) one_file_system: bool,
}

/// An iterator over the entries of a local tree, without its root.
pub(crate) struct LocalScan {
    root: PathBuf,
    options: ScanOptions,
    filter: PathFilter,
    device: u64,
    open: Vec<ScannedDirectory>,
}

struct ScannedDirectory {
    path: String,
    descriptor: OwnedFd,
    /// Its device and inode.
    identity: (u64, u64),
    names: std::vec::IntoIter<ScannedName>,
}

/// A name in the order of the listing.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ScannedName {
    /// With replacement characters if it is not UTF-8.
    text: Box<str>,
    is_utf8: bool,
}

impl LocalScan {
    /// The scan of the directory `root`; the user may have named a link to one. A root that does not
    /// exist has no entries.
    ///
    /// # Errors
    /// [`ClientError::Local`] if it cannot be listed.
    pub(crate) fn new(
        root: &Path,
        options: ScanOptions,
        filter: PathFilter,
    ) -> Result<Self, ClientError> {
        let mut scan = Self {
            root: root.to_owned(),
            options,
            filter,
            device: 0,
            open: Vec::new(),
        };
        let failed = |errno: Errno| ClientError::local("list", root, errno.into());
        let opened = open_directory(CWD, root, true)
            .and_then(|descriptor| Ok((fstat(&descriptor)?, descriptor)));
        match opened {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
            Ok((stat, descriptor)) => {
                scan.device = stat.st_dev;
                let directory = ScannedDirectory::read(String::new(), descriptor, &stat);
                scan.open.push(directory.map_err(failed)?);
            }
        }
        Ok(scan)
    }

    /// The item of a name; `None` if it disappeared, or is of a download.
    fn look_at(&mut self, name: &ScannedName) -> Result<Option<ListedItem>, ClientError> {
        let Some(parent) = self.open.last() else {
            return Ok(None);
        };
        let path = if parent.path.is_empty() {
            name.text.to_string()
        } else {
            format!("{}/{}", parent.path, name.text)
        };
        if is_unfinished_download(&name.text) {
            return Ok(None);
        }
        if !name.is_utf8 {
            let error = ClientError::NotUtf8(PathBuf::from(&path));
            return Ok(Some(withheld(path, WithheldReason::Failed(error))));
        }
        let (is_link, stat) = match self.stat(parent, &name.text) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Ok(Some(self.failed(path, errno))),
        };
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_dir = file_type == FileType::Directory;
        if let Some(reason) = self.filter.check(&path, is_dir, size)? {
            return Ok(Some(withheld(path, reason)));
        }
        if !is_portable_name(&name.text) {
            return Ok(Some(withheld(path, WithheldReason::Name)));
        }
        Ok(Some(match file_type {
            FileType::RegularFile => ListedItem::Entry(to_entry(path, Kind::File, size, &stat)),
            FileType::Directory => self.enter(path, &name.text, &stat),
            FileType::Symlink if self.options.links == LinkPolicy::Skip => {
                withheld(path, WithheldReason::Link)
            }
            FileType::Symlink if is_link => withheld(path, WithheldReason::DanglingLink),
            _ => withheld(path, WithheldReason::Special),
        }))
    }

    /// The metadata of an entry, of its target if links are followed, and whether it is a link.
    fn stat(&self, parent: &ScannedDirectory, name: &str) -> Result<(bool, Stat), Errno> {
        let stat = statat(&parent.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if is_link && self.options.links == LinkPolicy::Follow {
            return match statat(&parent.descriptor, name, AtFlags::empty()) {
                Ok(target) => Ok((true, target)),
                // The link itself, which the caller reports.
                Err(Errno::NOENT | Errno::LOOP) => Ok((true, stat)),
                Err(errno) => Err(errno),
            };
        }
        Ok((is_link, stat))
    }

    /// Opens a directory, whose entries come next.
    fn enter(&mut self, path: String, name: &str, stat: &Stat) -> ListedItem {
        if self.options.one_file_system && stat.st_dev != self.device {
            return withheld(path, WithheldReason::OtherFileSystem);
        }
        if self.open.iter().any(|open| open.identity == identity(stat)) {
            return withheld(path, WithheldReason::LinkLoop);
        }
        if self.open.len() > MAX_DEPTH {
            let error = ClientError::TooDeep(u32::try_from(MAX_DEPTH).unwrap_or(u32::MAX));
            return withheld(path, WithheldReason::Failed(error));
        }
        let follow = self.options.links == LinkPolicy::Follow;
        let opened = match self.open.last() {
            Some(parent) => open_directory(&parent.descriptor, Path::new(name), follow),
            None => Err(Errno::NOENT),
        };
        let directory =
            opened.and_then(|descriptor| ScannedDirectory::read(path.clone(), descriptor, stat));
        match directory {
            Ok(directory) => {
                self.open.push(directory);
                ListedItem::Entry(to_entry(path, Kind::Dir, 0, stat))
            }
            Err(errno) => self.failed(path, errno),
        }
    }

    fn failed(&self, path: String, errno: Errno) -> ListedItem {
        let error = ClientError::local("read", self.root.join(&path), errno.into());
        withheld(path, WithheldReason::Failed(error))
    }
}

impl Iterator for LocalScan {
    type Item = Result<ListedItem, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(directory) = self.open.last_mut() {
            let Some(name) = directory.names.next() else {
                self.open.pop();
                continue;
            };
            if let Some(item) = self.look_at(&name).transpose() {
                return Some(item);
            }
        }
        None
    }
}

impl ScannedDirectory {
    /// Reads and sorts the names of an open directory.
    fn read(path: String, descriptor: OwnedFd, stat: &Stat) -> Result<Self, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&descriptor)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let text = name.to_string_lossy();
            names.push(ScannedName {
                is_utf8: text.as_bytes() == name.to_bytes(),
                text: text.into(),
            });
        }
        names.sort_unstable();
        Ok(Self {
            path,
            descriptor,
            identity: identity(stat),
            names: names.into_iter(),
        })
    }
}

fn open_directory(parent: impl AsFd, name: &Path, follow: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    openat(parent, name, flags, Mode::empty())
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn withheld(path: String, reason: WithheldReason) -> ListedItem {
    ListedItem::Withheld { path, reason }
}

fn to_entry(path: String, kind: Kind, size: u64, stat: &Stat) -> SyncEntry {
    SyncEntry {
        path,
        kind,
        size,
        modified: modified(stat),
        mode: Some(FileMode::from_st_mode(stat.st_mode)),
        version: None,
        digest: None,
    }
}

/// The modification time, clamped to the range of a timestamp.
fn modified(stat: &Stat) -> Timestamp {
    let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or(if stat.st_mtime < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;
    use crate::client::sync::entry::compare_paths;
    use crate::client::sync::filter::FilterOptions;

    fn tree(files: &[&str]) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for path in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "text").expect("written");
        }
        directory
    }

    fn scan(root: &Path, options: ScanOptions, filter: &FilterOptions) -> Vec<(String, String)> {
        let filter = PathFilter::new(filter, root.to_owned(), None).expect("sound patterns");
        let scan = LocalScan::new(root, options, filter).expect("listed");
        scan.map(|item| match item.expect("no error") {
            ListedItem::Entry(entry) => (entry.path, format!("{:?}", entry.kind)),
            ListedItem::Withheld { path, reason, .. } => (path, reason.to_string()),
        })
        .collect()
    }

    fn paths(items: &[(String, String)]) -> Vec<&str> {
        items.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn entries_come_depth_first_and_bytewise_by_component() {
        let files = ["a.b", "a/y", "a/x/1", "a!", "b", "Z/ü", ".hidden"];
        let directory = tree(&files);
        let items = scan(
            directory.path(),
            ScanOptions::default(),
            &FilterOptions::default(),
        );
        let paths = paths(&items);
        assert_eq!(
            paths,
            [
                ".hidden", "Z", "Z/ü", "a", "a/x", "a/x/1", "a/y", "a!", "a.b", "b"
            ]
        );
        assert!(paths.is_sorted_by(|a, b| compare_paths(a, b).is_lt()));
    }

    #[test]
    fn excluded_directories_are_not_entered() {
        let directory = tree(&["a/1", "b/1", "b/2"]);
        let filter = FilterOptions {
            exclude: vec!["b/".into(), "a/1".into()],
            ..FilterOptions::default()
        };
        let items = scan(directory.path(), ScanOptions::default(), &filter);
        let expected = [("a", "Dir"), ("a/1", "excluded"), ("b", "excluded")];
        assert_eq!(
            items,
            expected.map(|(path, what)| (path.into(), what.into()))
        );
    }

    #[test]
    fn links_are_skipped_or_followed_but_not_in_circles() {
        let directory = tree(&["a/1", "f"]);
        let root = directory.path();
        symlink("../f", root.join("a/to-file")).expect("linked");
        symlink("..", root.join("a/up")).expect("linked");
        symlink("nothing", root.join("dangling")).expect("linked");
        let skipped = scan(root, ScanOptions::default(), &FilterOptions::default());
        let expected = [
            ("a", "Dir"),
            ("a/1", "File"),
            ("a/to-file", "a symbolic link"),
            ("a/up", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("f", "File"),
        ];
        assert_eq!(
            skipped,
            expected.map(|(path, what)| (path.into(), what.into()))
        );
        let options = ScanOptions {
            links: LinkPolicy::Follow,
            ..ScanOptions::default()
        };
        let followed = scan(root, options, &FilterOptions::default());
        let expected = [
            ("a", "Dir"),
            ("a/1", "File"),
            ("a/to-file", "File"),
            ("a/up", "a symbolic link to a directory that contains it"),
            ("dangling", "a symbolic link to nothing"),
            ("f", "File"),
        ];
        assert_eq!(
            followed,
            expected.map(|(path, what)| (path.into(), what.into()))
        );
    }

    #[test]
    fn names_that_the_other_side_cannot_have_are_reported() {
        let directory = tree(&["a\nb", "c", ".haul-0123456789abcdef.part"]);
        let invalid = directory.path().join(OsStr::from_bytes(b"x\xff"));
        fs::write(invalid, "text").expect("written");
        let items = scan(
            directory.path(),
            ScanOptions::default(),
            &FilterOptions::default(),
        );
        assert_eq!(paths(&items), ["a\nb", "c", "x\u{fffd}"]);
        assert!(items[0].1.contains("name"), "{}", items[0].1);
        assert!(items[2].1.contains("is not UTF-8"), "{}", items[2].1);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_reported_and_the_others_are_listed() {
        let directory = tree(&["a/1", "b/1"]);
        let closed = directory.path().join("a");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).expect("closed");
        // Root reads every directory.
        let is_readable = fs::read_dir(&closed).is_ok();
        let items = scan(
            directory.path(),
            ScanOptions::default(),
            &FilterOptions::default(),
        );
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("opened");
        if !is_readable {
            assert_eq!(paths(&items), ["a", "b", "b/1"]);
            assert!(items[0].1.contains("cannot read"), "{}", items[0].1);
        }
    }

    #[test]
    fn a_root_that_does_not_exist_is_empty_and_a_file_is_no_root() {
        let directory = tree(&["f"]);
        let missing = directory.path().join("missing");
        assert!(scan(&missing, ScanOptions::default(), &FilterOptions::default()).is_empty());
        let file = directory.path().join("f");
        let filter = PathFilter::new(&FilterOptions::default(), file.clone(), None);
        let filter = filter.expect("no patterns");
        assert!(LocalScan::new(&file, ScanOptions::default(), filter).is_err());
    }
}

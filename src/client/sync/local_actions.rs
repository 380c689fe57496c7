//! Changes of the local tree: plain blocking I/O.
//!
//! No link is followed: each entry is changed by its name in a descriptor of its directory. The content of
//! copies and the backup directory are opened by their paths.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, chmodat, fchmod, fstat,
    linkat, mkdirat, openat, renameat, statat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::client::ClientError;
use crate::client::local_tree::{LocalParent, TreePath};
use crate::client::sync::entry::SyncEntry;
use crate::client::sync::rules::MetadataChange;
use crate::client::transfer::part_file;
use crate::client::transfer::sink::LocalSink;
use crate::client::transfer::source::LocalFile;
use crate::protocol::IfExists;

/// Makes a directory whose permission bits are set at the end; until then only its owner reads it if
/// it has any.
pub(crate) fn make_directory(path: &TreePath<'_>, entry: &SyncEntry) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("make directory", &path.display, error);
    let parent = path.parent().map_err(failed)?;
    let mode = if entry.mode.is_some() { 0o700 } else { 0o777 };
    match mkdirat(parent.directory(), parent.name(), Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) => {
            let stat = statat(parent.directory(), parent.name(), AtFlags::SYMLINK_NOFOLLOW);
            let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
            if stat.is_ok_and(|stat| is_directory(stat.st_mode)) {
                return Ok(());
            }
            Err(failed(io::ErrorKind::NotADirectory.into()))
        }
        result => result.map_err(|errno| failed(errno.into())),
    }
}

/// Sets the metadata of `entry` that differ.
pub(crate) fn set_metadata(
    path: &TreePath<'_>,
    entry: &SyncEntry,
    change: MetadataChange,
) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("set the metadata of", &path.display, error);
    let parent = path.parent().map_err(failed)?;
    if let Some(mode) = entry.mode.filter(|_| change.mode) {
        set_mode(&parent, Mode::from_raw_mode(mode.bits())).map_err(failed)?;
    }
    if change.modified {
        set_modified(parent.directory(), parent.name(), entry.modified).map_err(failed)?;
    }
    Ok(())
}

fn set_mode(parent: &LocalParent<'_>, mode: Mode) -> io::Result<()> {
    // The owner of an entry may change its mode without being allowed to read it.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = openat(parent.directory(), parent.name(), flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    let by_number = format!("/proc/self/fd/{}", entry.as_raw_fd());
    match chmodat(CWD, by_number, mode, AtFlags::empty()) {
        // Without /proc.
        Err(Errno::NOENT) => {
            let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = openat(parent.directory(), parent.name(), flags, Mode::empty())?;
            Ok(fchmod(entry, mode)?)
        }
        changed => Ok(changed?),
    }
}

fn set_modified(directory: BorrowedFd<'_>, name: impl Arg, modified: Timestamp) -> io::Result<()> {
    let nanoseconds = modified.as_nanosecond();
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let rest = nanoseconds.rem_euclid(1_000_000_000);
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(seconds).map_err(out_of_range)?,
            tv_nsec: i64::try_from(rest).map_err(out_of_range)?,
        },
    };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Renames `from` to `to`, or copies it there, and sets the metadata of `entry`.
pub(crate) fn relocate(
    from: &TreePath<'_>,
    to: &TreePath<'_>,
    entry: &SyncEntry,
    copy: bool,
) -> Result<(), ClientError> {
    if copy {
        return copy_file(&from.display, &to.display, entry);
    }
    let failed = |error| ClientError::local("rename", &from.display, error);
    let (source, target) = (from.parent().map_err(failed)?, to.parent().map_err(failed)?);
    renameat(
        source.directory(),
        source.name(),
        target.directory(),
        target.name(),
    )
    .map_err(|errno| failed(errno.into()))?;
    let change = MetadataChange {
        modified: true,
        mode: entry.mode.is_some(),
    };
    set_metadata(to, entry, change)
}

/// Copies a file, which appears once it is complete.
fn copy_file(from: &Path, to: &Path, entry: &SyncEntry) -> Result<(), ClientError> {
    let mut source = LocalFile::open(from)?;
    let mut copy = LocalSink::create(to, IfExists::Replace)?;
    while let Some(chunk) = source.next_chunk()? {
        copy.write(&chunk)?;
    }
    copy.commit(entry.modified, entry.mode).map(drop)
}

/// Deletes a file. One that does not exist any more is deleted.
pub(crate) fn delete_file(path: &TreePath<'_>) -> Result<(), ClientError> {
    let delete = |parent: LocalParent<'_>| {
        Ok(unlinkat(
            parent.directory(),
            parent.name(),
            AtFlags::empty(),
        )?)
    };
    absent_is_deleted(path, path.parent().and_then(delete))
}

/// Deletes an empty directory; interrupted downloads into it do not count.
pub(crate) fn delete_directory(path: &TreePath<'_>) -> Result<(), ClientError> {
    let delete = |parent: LocalParent<'_>| {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(directory) = openat(parent.directory(), parent.name(), flags, Mode::empty()) {
            let by_number = format!("/proc/self/fd/{}", directory.as_raw_fd());
            part_file::remove_interrupted(Path::new(&by_number));
        }
        Ok(unlinkat(
            parent.directory(),
            parent.name(),
            AtFlags::REMOVEDIR,
        )?)
    };
    absent_is_deleted(path, path.parent().and_then(delete))
}

fn absent_is_deleted(path: &TreePath<'_>, result: io::Result<()>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| ClientError::local("delete", &path.display, error)),
    }
}

/// Moves a file into the backup directory, under its path relative to the root. A file of the same
/// path there is replaced by none: the new one takes the first free number.
pub(crate) fn back_up(from: &TreePath<'_>, to: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("move to the backup directory", &from.display, error);
    let parent = match from.parent() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent.map_err(failed)?,
    };
    let target = free_name(to).map_err(failed)?;
    match renameat(parent.directory(), parent.name(), CWD, &target) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::XDEV) => {
            copy_as_it_is(&from.display, &target).map_err(failed)?;
            delete_file(from)
        }
        result => result.map_err(|errno| failed(errno.into())),
    }
}

/// Puts a file that is about to be replaced into the backup directory, as [`back_up`] moves one. Its
/// replacement is another file, so a link to this one keeps it.
pub(crate) fn copy_to_backup(from: &TreePath<'_>, to: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("copy to the backup directory", &from.display, error);
    let parent = match from.parent() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent.map_err(failed)?,
    };
    let target = free_name(to).map_err(failed)?;
    let flags = AtFlags::empty();
    match linkat(parent.directory(), parent.name(), CWD, &target, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // Another run has taken the name.
        Err(Errno::EXIST) => copy_to_backup(from, to),
        // The backup directory is on another file system, or this one has no links.
        Err(_) => copy_as_it_is(&from.display, &target).map_err(failed),
    }
}

fn copy_as_it_is(from: &Path, to: &Path) -> io::Result<()> {
    let modified = Timestamp::try_from(fs::metadata(from)?.modified()?);
    let modified = modified.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::copy(from, to)?;
    // By name: the permission bits are those of the file, which may not allow to open it.
    set_modified(CWD, to, modified)
}

/// The first free name in the backup directory, whose directories are made.
fn free_name(to: &Path) -> io::Result<PathBuf> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut target = to.to_owned();
    let mut number = 0;
    while target.symlink_metadata().is_ok() {
        number += 1;
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(" ({number})"));
        target.set_file_name(name);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::client::local_tree::LocalTree;
    use crate::protocol::{FileMode, Kind};

    fn tree(root: &Path) -> LocalTree {
        LocalTree::open(root).expect("open")
    }

    fn at<'a>(tree: &'a LocalTree, root: &Path, relative: &str) -> TreePath<'a> {
        TreePath {
            tree,
            relative: relative.into(),
            display: root.join(relative),
        }
    }

    fn entry(kind: Kind, mode: u32, second: i64) -> SyncEntry {
        SyncEntry {
            path: "x".into(),
            kind,
            size: 0,
            modified: Timestamp::new(second, 123_456_789).expect("in range"),
            mode: Some(FileMode::from_st_mode(mode)),
            version: None,
            digest: None,
        }
    }

    #[test]
    fn a_directory_is_private_until_it_gets_its_mode_and_time() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("d");
        let entry = entry(Kind::Dir, 0o755, -5);
        let tree = tree(root.path());
        let place = at(&tree, root.path(), "d");
        make_directory(&place, &entry).expect("made");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        make_directory(&place, &entry).expect("there already");
        let change = MetadataChange {
            modified: true,
            mode: true,
        };
        set_metadata(&place, &entry, change).expect("set");
        let modified = path.metadata().and_then(|there| there.modified());
        let modified = Timestamp::try_from(modified.expect("a time")).expect("in range");
        assert_eq!((mode(&path), modified), (0o755, entry.modified));
    }

    #[test]
    fn a_copy_has_the_content_of_its_source_and_the_metadata_of_the_entry() {
        let root = tempfile::tempdir().expect("a directory");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::write(&from, "text").expect("written");
        let tree = tree(root.path());
        let (source, target) = (at(&tree, root.path(), "from"), at(&tree, root.path(), "to"));
        relocate(&source, &target, &entry(Kind::File, 0o600, 7), true).expect("copied");
        assert!(from.exists());
        assert_eq!(fs::read_to_string(&to).expect("there"), "text");
        assert_eq!(
            to.metadata().expect("there").permissions().mode() & 0o777,
            0o600
        );
        fs::remove_file(&to).expect("removed");
        relocate(&source, &target, &entry(Kind::File, 0o644, 7), false).expect("moved");
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn a_backup_replaces_no_other_backup() {
        let root = tempfile::tempdir().expect("a directory");
        let to = root.path().join("old/a/f");
        for text in ["1", "2", "3"] {
            let from = root.path().join("f");
            fs::write(&from, text).expect("written");
            let tree = tree(root.path());
            back_up(&at(&tree, root.path(), "f"), &to).expect("moved");
        }
        let read = |name: &str| fs::read_to_string(to.with_file_name(name)).expect("there");
        assert_eq!(
            (read("f"), read("f (1)"), read("f (2)")),
            ("1".into(), "2".into(), "3".into())
        );
    }

    #[test]
    fn a_backup_may_be_on_another_file_system() {
        let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let root = tempfile::tempdir().expect("a directory");
        let from = root.path().join("f");
        fs::write(&from, "text").expect("written");
        fs::set_permissions(&from, fs::Permissions::from_mode(0o444)).expect("set");
        let to = other.path().join("a/f");
        let tree = tree(root.path());
        let file = at(&tree, root.path(), "f");
        copy_to_backup(&file, &to).expect("copied");
        back_up(&file, &to).expect("moved");
        assert!(!from.exists());
        for name in ["f", "f (1)"] {
            let backup = to.with_file_name(name);
            assert_eq!(fs::read_to_string(backup).expect("there"), "text");
        }
    }

    #[test]
    fn an_interrupted_download_does_not_keep_its_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("d");
        fs::create_dir(&directory).expect("made");
        let mut sink =
            LocalSink::create(&directory.join("f"), IfExists::Replace).expect("a target");
        sink.begin("v1", 100 << 20).expect("begun");
        sink.write(&vec![1; 1 << 20]).expect("written");
        let tree = tree(root.path());
        let place = at(&tree, root.path(), "d");
        assert!(delete_directory(&place).is_err(), "a download runs");
        drop(sink);
        delete_directory(&place).expect("deleted");
        assert!(!directory.exists());
    }

    #[test]
    fn no_change_passes_a_directory_that_a_link_has_replaced() {
        let place = tempfile::tempdir().expect("a directory");
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir_all(root.join("a")).expect("made");
        fs::create_dir_all(outside.join("d")).expect("made");
        fs::write(outside.join("f"), "text").expect("written");
        fs::write(root.join("g"), "text").expect("written");
        let old = outside.join("f").metadata().expect("metadata");
        let tree = tree(&root);
        fs::rename(root.join("a"), root.join("b")).expect("moved");
        symlink(&outside, root.join("a")).expect("linked");
        let at = |relative: &str| at(&tree, &root, relative);
        let file = entry(Kind::File, 0o600, 7);
        let change = MetadataChange {
            modified: true,
            mode: true,
        };
        let backup = place.path().join("backup/f");
        let results = [
            make_directory(&at("a/new"), &entry(Kind::Dir, 0o755, 7)),
            set_metadata(&at("a/f"), &file, change),
            relocate(&at("a/f"), &at("f"), &file, false),
            relocate(&at("g"), &at("a/g"), &file, false),
            delete_file(&at("a/f")),
            delete_directory(&at("a/d")),
            back_up(&at("a/f"), &backup),
            copy_to_backup(&at("a/f"), &backup),
            set_metadata(&at("a"), &file, change),
        ];
        for (number, result) in results.into_iter().enumerate() {
            assert!(result.is_err(), "{number}");
        }
        let new = outside.join("f").metadata().expect("metadata");
        assert_eq!(new.modified().ok(), old.modified().ok());
        assert_eq!(new.permissions(), old.permissions());
        assert_eq!(fs::read_dir(&outside).expect("listed").count(), 2);
        assert!(root.join("g").exists());
    }
}

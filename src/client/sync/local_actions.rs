//! Changes of the local tree: plain blocking I/O.
//!
//! No link is followed: a directory in the way of a path was scanned as one, and a last component is
//! changed itself.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use crate::client::ClientError;
use crate::client::sync::entry::SyncEntry;
use crate::client::sync::rules::MetadataChange;
use crate::client::transfer::part_file;
use crate::client::transfer::sink::LocalSink;
use crate::client::transfer::source::LocalFile;
use crate::protocol::IfExists;

/// Makes a directory whose permission bits are set at the end; until then only its owner reads it if
/// it has any.
pub(crate) fn make_directory(path: &Path, entry: &SyncEntry) -> Result<(), ClientError> {
    let mut builder = DirBuilder::new();
    if entry.mode.is_some() {
        builder.mode(0o700);
    }
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
                return Ok(());
            }
            let error = io::ErrorKind::NotADirectory.into();
            Err(ClientError::local("make directory", path, error))
        }
        made => made.map_err(|error| ClientError::local("make directory", path, error)),
    }
}

/// Sets the metadata of `entry` that differ.
pub(crate) fn set_metadata(
    path: &Path,
    entry: &SyncEntry,
    change: MetadataChange,
) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("set the metadata of", path, error);
    if let Some(mode) = entry.mode.filter(|_| change.mode) {
        fs::set_permissions(path, Permissions::from_mode(mode.bits())).map_err(failed)?;
    }
    if change.modified {
        set_modified(path, entry.modified).map_err(failed)?;
    }
    Ok(())
}

fn set_modified(path: &Path, modified: Timestamp) -> io::Result<()> {
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
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Renames `from` to `to`, or copies it there, and sets the metadata of `entry`.
pub(crate) fn relocate(
    from: &Path,
    to: &Path,
    entry: &SyncEntry,
    copy: bool,
) -> Result<(), ClientError> {
    if copy {
        return copy_file(from, to, entry);
    }
    fs::rename(from, to).map_err(|error| ClientError::local("rename", from, error))?;
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
pub(crate) fn delete_file(path: &Path) -> Result<(), ClientError> {
    absent_is_deleted(path, fs::remove_file(path))
}

/// Deletes an empty directory; interrupted downloads into it do not count.
pub(crate) fn delete_directory(path: &Path) -> Result<(), ClientError> {
    part_file::remove_interrupted(path);
    absent_is_deleted(path, fs::remove_dir(path))
}

fn absent_is_deleted(path: &Path, result: io::Result<()>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| ClientError::local("delete", path, error)),
    }
}

/// Moves a file into the backup directory, under its path relative to the root. A file of the same
/// path there is replaced by none: the new one takes the first free number.
pub(crate) fn back_up(from: &Path, to: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("move to the backup directory", from, error);
    let target = free_name(to).map_err(failed)?;
    match fs::rename(from, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_as_it_is(from, &target).map_err(failed)?;
            delete_file(from)
        }
        result => result.map_err(failed),
    }
}

/// Puts a file that is about to be replaced into the backup directory, as [`back_up`] moves one. Its
/// replacement is another file, so a link to this one keeps it.
pub(crate) fn copy_to_backup(from: &Path, to: &Path) -> Result<(), ClientError> {
    let failed = |error| ClientError::local("copy to the backup directory", from, error);
    let target = free_name(to).map_err(failed)?;
    match fs::hard_link(from, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Another run has taken the name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => copy_to_backup(from, to),
        // The backup directory is on another file system, or this one has no links.
        Err(_) => copy_as_it_is(from, &target).map_err(failed),
        Ok(()) => Ok(()),
    }
}

fn copy_as_it_is(from: &Path, to: &Path) -> io::Result<()> {
    let modified = Timestamp::try_from(fs::metadata(from)?.modified()?);
    let modified = modified.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    fs::copy(from, to)?;
    // By name: the permission bits are those of the file, which may not allow to open it.
    set_modified(to, modified)
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
    use super::*;
    use crate::protocol::{FileMode, Kind};

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
        make_directory(&path, &entry).expect("made");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        make_directory(&path, &entry).expect("there already");
        let change = MetadataChange {
            modified: true,
            mode: true,
        };
        set_metadata(&path, &entry, change).expect("set");
        let modified = path.metadata().and_then(|there| there.modified());
        let modified = Timestamp::try_from(modified.expect("a time")).expect("in range");
        assert_eq!((mode(&path), modified), (0o755, entry.modified));
    }

    #[test]
    fn a_copy_has_the_content_of_its_source_and_the_metadata_of_the_entry() {
        let root = tempfile::tempdir().expect("a directory");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::write(&from, "text").expect("written");
        relocate(&from, &to, &entry(Kind::File, 0o600, 7), true).expect("copied");
        assert!(from.exists());
        assert_eq!(fs::read_to_string(&to).expect("there"), "text");
        assert_eq!(
            to.metadata().expect("there").permissions().mode() & 0o777,
            0o600
        );
        fs::remove_file(&to).expect("removed");
        relocate(&from, &to, &entry(Kind::File, 0o644, 7), false).expect("moved");
        assert!(!from.exists() && to.exists());
    }

    #[test]
    fn a_backup_replaces_no_other_backup() {
        let root = tempfile::tempdir().expect("a directory");
        let to = root.path().join("old/a/f");
        for text in ["1", "2", "3"] {
            let from = root.path().join("f");
            fs::write(&from, text).expect("written");
            back_up(&from, &to).expect("moved");
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
        fs::set_permissions(&from, Permissions::from_mode(0o444)).expect("set");
        let to = other.path().join("a/f");
        copy_to_backup(&from, &to).expect("copied");
        back_up(&from, &to).expect("moved");
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
        assert!(delete_directory(&directory).is_err(), "a download runs");
        drop(sink);
        delete_directory(&directory).expect("deleted");
        assert!(!directory.exists());
    }
}

//! The files that downloads are written to until they are complete.
//!
//! A download writes to `.haul-HASH.part` in the directory of its target, where HASH is a digest of
//! the target's file name, so that the next download of the same target finds the file. Its owner
//! holds a lock on it (`flock`) for as long as it has that name, and the system releases the lock of
//! a process that is killed. A part file without a lock is therefore stale: a download of the same
//! target replaces it, and a download that begins in the directory removes it.
//!
//! A file that was just created is not locked yet. Another download may then remove it, and its creator
//! notices this and creates another one. Where the file system has no locks, no part file is removed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::{NamedTempFile, TempPath};

/// Downloads of one target that may run at the same time.
const MAX_OWNERS: u32 = 100;

/// Attempts to create a file that others remove before it is locked.
const MAX_ATTEMPTS: u32 = 100;

/// Entries of a directory among which stale files are searched.
const MAX_ENTRIES: usize = 100_000;

const PREFIX: &str = ".haul-";
const SUFFIX: &str = ".part";

/// Hexadecimal digits of HASH.
const HASH_DIGITS: usize = 16;

/// Creates the part file for `target`, empty and locked. It is removed when it is dropped.
///
/// # Errors
/// An error of the system, or [`io::ErrorKind::ResourceBusy`] if too many downloads of this target run.
pub(crate) fn create(target: &Path) -> io::Result<NamedTempFile> {
    let directory = directory_of(target);
    let name = target.file_name().unwrap_or_default();
    for owner in 0..MAX_OWNERS {
        let path = directory.join(file_name(name, owner));
        if let Some(file) = try_create(&path)? {
            let path = TempPath::try_from_path(path)?;
            return Ok(NamedTempFile::from_parts(file, path));
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The directory in which the part file of `target` is.
pub(crate) fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Removes the part files in a directory whose owners were killed. Failures are ignored: no download
/// needs the name of a stale file.
pub(crate) fn remove_stale(directory: &Path) {
    let Ok(entries) = directory.read_dir() else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
        if is_part(&entry.file_name()) {
            remove_unless_locked(&entry.path());
        }
    }
}

fn file_name(target: &OsStr, owner: u32) -> String {
    let hash = blake3::hash(target.as_encoded_bytes()).to_hex();
    let hash = &hash[..HASH_DIGITS];
    match owner {
        0 => format!("{PREFIX}{hash}{SUFFIX}"),
        _ => format!("{PREFIX}{hash}-{owner}{SUFFIX}"),
    }
}

/// Whether `name` has the form of a part file's. No download gets such a name: who chose it on the
/// server could otherwise write to the part file of another download, or have the file removed.
pub(crate) fn is_part(name: &OsStr) -> bool {
    let middle = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
    let Some((hash, rest)) = middle.and_then(|middle| middle.split_at_checked(HASH_DIGITS)) else {
        return false;
    };
    let is_hash = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let owner = rest.strip_prefix('-').map(str::parse::<u32>);
    is_hash && (rest.is_empty() || matches!(owner, Some(Ok(_))))
}

/// `None` if the file belongs to another download.
fn try_create(path: &Path) -> io::Result<Option<File>> {
    for _ in 0..MAX_ATTEMPTS {
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(path);
        match created {
            Ok(file) => match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Ok(()) if file.metadata()?.nlink() == 0 => {}
                // Without locks no other download can remove it either.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Some(file)),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !remove_unless_locked(path) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Removes a file unless it belongs to a download that runs; whether the path is free now.
fn remove_unless_locked(path: &Path) -> bool {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let Ok(opened) = file.metadata() else {
        return false;
    };
    if !opened.is_file() || file.try_lock().is_err() {
        return false;
    }
    // Its owner may have renamed it and another one may have created the file that is there now.
    // While this lock is held, no other download changes the entry that the path names.
    match path.symlink_metadata() {
        Ok(there) if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) => {
            fs::remove_file(path).is_ok()
        }
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Opens an entry that may not be a file. Some file systems lock only files that are open for writing.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.custom_flags(flags.bits().cast_signed());
    options
        .write(true)
        .open(path)
        .or_else(|_| options.write(false).read(true).open(path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().expect("readable");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    /// The leftover of a download of `target` whose process was killed.
    fn kill_download_of(target: &Path) -> PathBuf {
        let (file, path) = create(target).expect("created").into_parts();
        let path = path.keep().expect("kept");
        drop(file);
        fs::write(&path, "half").expect("written");
        path
    }

    #[test]
    fn a_stale_part_file_is_replaced_by_the_next_download_of_its_target() {
        let place = tempfile::tempdir().expect("a directory");
        let target = place.path().join("target");
        let stale = kill_download_of(&target);
        let part = create(&target).expect("created");
        assert_eq!(part.path(), stale);
        assert_eq!(part.as_file().metadata().expect("there").len(), 0);
        drop(part);
        assert!(names(place.path()).is_empty());
    }

    #[test]
    fn stale_part_files_are_removed_and_those_of_live_downloads_and_other_files_stay() {
        let place = tempfile::tempdir().expect("a directory");
        let stale = kill_download_of(&place.path().join("stale"));
        fs::set_permissions(&stale, std::os::unix::fs::PermissionsExt::from_mode(0o444))
            .expect("set");
        let mut live = create(&place.path().join("live")).expect("created");
        live.write_all(b"half").expect("written");
        let others = [
            ".haul-notes.part",
            ".haul-0123456789abcdef.part.txt",
            "a.part",
        ];
        for name in others {
            fs::write(place.path().join(name), "").expect("written");
        }
        remove_stale(place.path());
        let mut expected = others.map(String::from).to_vec();
        expected.push(
            live.path()
                .file_name()
                .expect("a name")
                .display()
                .to_string(),
        );
        expected.sort();
        assert_eq!(names(place.path()), expected);
    }

    #[test]
    fn two_downloads_of_one_target_have_a_part_file_each() {
        let place = tempfile::tempdir().expect("a directory");
        let target = place.path().join("target");
        let (first, second) = (create(&target), create(&target));
        let (first, second) = (first.expect("created"), second.expect("created"));
        assert_ne!(first.path(), second.path());
        remove_stale(place.path());
        assert!(first.path().exists() && second.path().exists());
        assert!(
            names(place.path())
                .iter()
                .all(|name| is_part(name.as_ref()))
        );
    }

    #[test]
    fn a_link_in_the_place_of_a_part_file_is_not_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let target = place.path().join("target");
        let other = place.path().join("other");
        fs::write(&other, "kept").expect("written");
        let planted = place.path().join(file_name(OsStr::new("target"), 0));
        std::os::unix::fs::symlink(&other, &planted).expect("linked");
        let part = create(&target).expect("created");
        assert_ne!(part.path(), planted);
        remove_stale(place.path());
        assert_eq!(fs::read_to_string(&other).expect("there"), "kept");
    }

    #[test]
    fn live_part_files_survive_any_number_of_downloads_that_begin_meanwhile() {
        let place = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let directory = place.path();
                scope.spawn(move || {
                    for round in 0..200 {
                        let target = directory.join(format!("{}", (thread + round) % 3));
                        let mut part = create(&target).expect("created");
                        remove_stale(directory);
                        part.write_all(b"content").expect("written");
                        part.persist(&target).expect("still there");
                    }
                });
            }
        });
        assert_eq!(names(place.path()), ["0", "1", "2"]);
    }
}

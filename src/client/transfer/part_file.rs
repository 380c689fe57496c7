//! The files that downloads are written to until they are complete.
//!
//! A download writes to `.haul-HASH.part` in the directory of its target, where HASH is a digest of
//! the target's file name, so that the next download of the same target finds the file. Its owner
//! holds a lock on it (`flock`) for as long as it has that name, and the system releases the lock of
//! a process that ends. A part file without a lock therefore belongs to an interrupted download.
//!
//! A large part file has an extended attribute with the `version` of the file on the server. The next
//! download of the same target locks the part file and continues it if the version is still the same.
//! Part files without the attribute, and those older than [`RETENTION`], are stale: a download that begins in
//! the directory removes them.
//!
//! A file that was just created is not locked yet. Another download may then remove it, and its creator
//! notices this and creates another one. On a file system without locks no part file is removed or
//! continued.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::fs::{OFlags, XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::process::geteuid;
use tempfile::TempPath;

use crate::protocol::{Algorithm, Hasher};

/// Downloads of one target that may run at the same time.
const MAX_OWNERS: u32 = 100;

/// Attempts to create a file that others remove before it is locked.
const MAX_ATTEMPTS: u32 = 100;

/// Entries of a directory among which stale files are searched.
const MAX_ENTRIES: usize = 100_000;

/// The time for which the part file of an interrupted download is kept.
const RETENTION: Duration = Duration::from_hours(7 * 24);

/// Downloads of smaller files start again. For them an attribute costs more than the bytes.
const MIN_RESUME_BYTES: u64 = 1024 * 1024;

const PREFIX: &str = ".haul-";
const SUFFIX: &str = ".part";

/// Hexadecimal digits of HASH.
const HASH_DIGITS: usize = 16;

/// The attribute with the version of the file on the server.
const VERSION_ATTRIBUTE: &str = "user.haul.part_version";

/// The longest version that is stored.
const MAX_VERSION_BYTES: usize = 256;

/// The metadata of a complete file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FinalMetadata {
    pub(crate) modified: Timestamp,
    /// The permission bits.
    pub(crate) mode: u32,
}

/// A locked part file, which only its owner can open. It is removed when it is dropped, unless it can be
/// continued.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    path: TempPath,
    content: PartContent,
}

/// The origin of the bytes in a part file.
#[derive(Debug)]
enum PartContent {
    /// They were written by this download, and cannot be continued by a later one.
    Volatile,
    /// An interrupted download of this version wrote them. They are removed by the first write, unless
    /// [`PartFile::resume`] continues them.
    Interrupted(String),
    /// They belong to this version, which is in the attribute, and can be continued by a later download.
    Resumable(String),
}

impl PartFile {
    /// Opens the part file of an interrupted download of `target`, or creates an empty one. Either is locked.
    ///
    /// # Errors
    /// An error of the system, or [`io::ErrorKind::ResourceBusy`] if too many downloads of this target run.
    pub(crate) fn open(target: &Path) -> io::Result<Self> {
        let directory = directory_of(target);
        let name = target.file_name().unwrap_or_default();
        for owner in 0..MAX_OWNERS {
            let path = directory.join(file_name(name, owner));
            if let Some((file, version)) = try_open(&path)? {
                let mut path = TempPath::try_from_path(path)?;
                path.disable_cleanup(version.is_some());
                return Ok(Self {
                    file,
                    path,
                    content: version.map_or(PartContent::Volatile, PartContent::Interrupted),
                });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Continues the content that an interrupted download has left, if there is one: returns its version, its
    /// hasher and its length. Later writes continue after it. Unreadable content is removed.
    pub(crate) fn resume(
        &mut self,
        algorithm: Algorithm,
    ) -> io::Result<Option<(String, Hasher, u64)>> {
        let PartContent::Interrupted(version) = &self.content else {
            return Ok(None);
        };
        let version = version.clone();
        let Ok((hasher, length)) = self.hash(algorithm) else {
            self.truncate()?;
            return Ok(None);
        };
        self.content = PartContent::Resumable(version.clone());
        Ok(Some((version, hasher, length)))
    }

    /// Stores the version of the file that is downloaded, before its first byte is written. A file of few bytes
    /// cannot be continued later, and none can on a file system without attributes.
    pub(crate) fn set_version(&mut self, version: &str, size: u64) -> io::Result<()> {
        self.remove_interrupted()?;
        if matches!(&self.content, PartContent::Resumable(stored) if stored == version) {
            return Ok(());
        }
        self.remove_version();
        let is_stored = size >= MIN_RESUME_BYTES
            && version.len() <= MAX_VERSION_BYTES
            && fsetxattr(
                &self.file,
                VERSION_ATTRIBUTE,
                version.as_bytes(),
                XattrFlags::empty(),
            )
            .is_ok();
        if is_stored {
            self.content = PartContent::Resumable(version.to_owned());
            self.path.disable_cleanup(true);
        }
        Ok(())
    }

    /// Hashes the bytes of the part, and leaves the position at its end.
    fn hash(&mut self, algorithm: Algorithm) -> io::Result<(Hasher, u64)> {
        const BUFFER_BYTES: usize = 256 * 1024;
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut length = 0;
        self.file.rewind()?;
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok((hasher, length)),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.remove_interrupted()?;
        self.file.write_all(chunk)
    }

    /// Removes its bytes and its version.
    pub(crate) fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.remove_version();
        self.file.rewind()
    }

    /// Renames the complete file to `target`, which is replaced.
    pub(crate) fn persist(mut self, metadata: FinalMetadata, target: &Path) -> io::Result<()> {
        self.complete(metadata)?;
        let Self {
            file: _lock, path, ..
        } = self;
        path.persist(target).map_err(|error| error.error)
    }

    /// Renames the complete file to the first of `targets` that does not exist. `None` if all exist.
    pub(crate) fn persist_new(
        mut self,
        metadata: FinalMetadata,
        mut targets: impl Iterator<Item = PathBuf>,
    ) -> Result<Option<PathBuf>, (PathBuf, io::Error)> {
        if let Err(error) = self.complete(metadata) {
            return Err((targets.next().unwrap_or_default(), error));
        }
        let Self {
            file: _lock,
            mut path,
            ..
        } = self;
        for target in targets {
            match path.persist_noclobber(&target) {
                Ok(()) => return Ok(Some(target)),
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                    path = error.path;
                }
                Err(error) => return Err((target, error.error)),
            }
        }
        Ok(None)
    }

    /// Removes the file.
    pub(crate) fn discard(mut self) {
        self.path.disable_cleanup(false);
    }

    /// Sets the metadata, the permission bits after the attribute, which they may not allow to be removed.
    fn complete(&mut self, metadata: FinalMetadata) -> io::Result<()> {
        self.remove_interrupted()?;
        self.remove_version();
        // Some file systems cannot store some modes and times. The content is still correct.
        let mode = Permissions::from_mode(metadata.mode);
        let _ = self.file.set_permissions(mode);
        let _ = self.file.set_modified(SystemTime::from(metadata.modified));
        Ok(())
    }

    fn remove_interrupted(&mut self) -> io::Result<()> {
        match self.content {
            PartContent::Interrupted(_) => self.truncate(),
            PartContent::Volatile | PartContent::Resumable(_) => Ok(()),
        }
    }

    fn remove_version(&mut self) {
        if !matches!(self.content, PartContent::Volatile) {
            let _ = fremovexattr(&self.file, VERSION_ATTRIBUTE);
            self.content = PartContent::Volatile;
        }
        self.path.disable_cleanup(false);
    }
}

/// The directory in which the part file of `target` is.
pub(crate) fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Removes the stale part files of a directory. Failures are ignored: no download needs the name of a
/// stale file.
pub(crate) fn remove_stale(directory: &Path) {
    remove_if(directory, |file| version_of(file).is_none());
}

/// Removes the part files of a directory that no running download has. Failures are ignored.
pub(crate) fn remove_interrupted(directory: &Path) {
    remove_if(directory, |_| true);
}

fn remove_if(directory: &Path, is_unneeded: impl Fn(&File) -> bool) {
    let Ok(entries) = directory.read_dir() else {
        return;
    };
    for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
        let path = entry.path();
        if is_part(&entry.file_name())
            && let Some(file) = lock_existing(&path)
            && is_unneeded(&file)
        {
            let _ = fs::remove_file(&path);
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

/// Whether `name` has the form of a part file's name. No download has such a target: a user who chooses it
/// on the server could otherwise write to the part file of another download, or have the file removed.
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

/// Opens or creates a part file, and locks it. `None` if it belongs to another download.
fn try_open(path: &Path) -> io::Result<Option<(File, Option<String>)>> {
    for _ in 0..MAX_ATTEMPTS {
        let created = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        match created {
            Ok(file) => match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Ok(()) if file.metadata()?.nlink() == 0 => {}
                // Without locks no other download can remove it either.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Some((file, None))),
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let Some(file) = lock_existing(path) else {
                    if is_absent(path) {
                        continue;
                    }
                    return Ok(None);
                };
                if let Some(version) = version_of(&file) {
                    return Ok(Some((file, Some(version))));
                }
                if fs::remove_file(path).is_err() {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_absent(path: &Path) -> bool {
    let metadata = path.symlink_metadata();
    metadata.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Opens and locks a part file, unless it belongs to a running download. While the lock is held, no other
/// download changes the entry that the path names.
fn lock_existing(path: &Path) -> Option<File> {
    let file = open_existing(path).ok()?;
    let opened = file.metadata().ok()?;
    if !opened.is_file() || file.try_lock().is_err() {
        return None;
    }
    // Before the lock, its owner may have renamed it and another one may have created a new file.
    let named = path.symlink_metadata().ok()?;
    ((named.dev(), named.ino()) == (opened.dev(), opened.ino())).then_some(file)
}

/// Opens an entry that may not be a file. Some file systems lock only files that are open for writing.
fn open_existing(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    options
        .write(true)
        .open(path)
        .or_else(|_| options.write(false).open(path))
        .or_else(|_| options.write(true).read(false).open(path))
}

/// The version of a locked part file that can be continued. Another user must not be able to write to the
/// file under another name or through an open descriptor, so it must be the user's own.
fn version_of(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    let is_own = metadata.uid() == geteuid().as_raw() && metadata.nlink() == 1;
    let is_writable = metadata.mode() & 0o600 == 0o600;
    // A time in the future counts as recent.
    let age = metadata.modified().ok()?.elapsed().unwrap_or_default();
    if !is_own || !is_writable || age > RETENTION {
        return None;
    }
    let mut value = [0; MAX_VERSION_BYTES];
    let length = fgetxattr(file, VERSION_ATTRIBUTE, &mut value).ok()?;
    let version = value.get(..length)?;
    String::from_utf8(version.to_vec()).ok()
}

#[cfg(test)]
mod tests;

//! The local targets of downloads. All methods block; [`crate::client::transfer::receive`] runs them on blocking
//! threads.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::client::ClientError;
use crate::client::transfer::part_file;
use crate::client::transfer::part_file::{FinalMetadata, PartFile};
use crate::client::transfer::umask::umask;
use crate::protocol::{Algorithm, FileMode, Hasher, IfExists, numbered_name};

/// Names that [`IfExists::Rename`] tries.
const MAX_RENAMES: u32 = 10_000;

/// The target of a download.
pub(crate) enum LocalSink {
    /// A part file in the directory of `target`, which is renamed to it once it is complete and verified.
    PartFile {
        part: PartFile,
        target: PathBuf,
        if_exists: IfExists,
        /// The permission bits that it gets if the server knows none.
        mode: u32,
    },
    /// A device or a pipe, and its name in messages.
    Stream(Box<dyn Write + Send>, PathBuf),
}

impl LocalSink {
    /// A target that the user named: a link is followed, a device is written to.
    pub(crate) fn named(target: &Path, if_exists: IfExists) -> Result<Self, ClientError> {
        let target = follow_link(target);
        match target.metadata() {
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
                let device = File::options()
                    .write(true)
                    .open(&target)
                    .map_err(|error| ClientError::local("write", &target, error))?;
                Ok(Self::Stream(Box::new(device), target))
            }
            _ => Self::create(&target, if_exists),
        }
    }

    /// A target that the server named: an existing entry can only be replaced.
    pub(crate) fn create(target: &Path, if_exists: IfExists) -> Result<Self, ClientError> {
        let failed = |error| ClientError::local("write", target, error);
        let name = target.file_name().unwrap_or_default();
        if part_file::is_part(name) {
            return Err(ClientError::UnsafeName(name.to_string_lossy().into()));
        }
        let existing = target.symlink_metadata().ok();
        if existing.as_ref().is_some_and(Metadata::is_dir) {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if existing.is_some() && if_exists == IfExists::Fail {
            return Err(ClientError::LocalExists(target.into()));
        }
        let part = PartFile::open(target).map_err(failed)?;
        let is_replaced =
            |existing: &Metadata| existing.is_file() && if_exists == IfExists::Replace;
        Ok(Self::PartFile {
            part,
            target: target.into(),
            if_exists,
            // New content must not run with the set-user-ID or set-group-ID bit of the old.
            mode: match existing.filter(is_replaced) {
                Some(replaced) => replaced.permissions().mode() & 0o777,
                None => 0o666 & !umask(),
            },
        })
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), ClientError> {
        let (outcome, path) = match self {
            Self::PartFile { part, target, .. } => (part.write(chunk), target),
            Self::Stream(stream, name) => (stream.write_all(chunk), name),
        };
        outcome.map_err(|error| ClientError::local("write", &*path, error))
    }

    /// The part of the file that an interrupted download has left: its version, its hasher and its length.
    pub(crate) fn resume(
        &mut self,
        algorithm: Algorithm,
    ) -> Result<Option<(String, Hasher, u64)>, ClientError> {
        let Self::PartFile { part, target, .. } = self else {
            return Ok(None);
        };
        part.resume(algorithm)
            .map_err(|error| ClientError::local("read", &*target, error))
    }

    /// Notes the version and the size of the file before its first byte is written.
    pub(crate) fn begin(&mut self, version: &str, size: u64) -> Result<(), ClientError> {
        let Self::PartFile { part, target, .. } = self else {
            return Ok(());
        };
        part.set_version(version, size)
            .map_err(|error| ClientError::local("write", &*target, error))
    }

    /// Removes the part file. Without this, the next download of the target continues it if it can.
    pub(crate) fn discard(self) {
        if let Self::PartFile { part, .. } = self {
            part.discard();
        }
    }

    /// Whether the written bytes can be discarded.
    pub(crate) fn can_restart(&self) -> bool {
        matches!(self, Self::PartFile { .. })
    }

    /// Discards the written bytes.
    pub(crate) fn restart(&mut self) -> Result<(), ClientError> {
        let (outcome, path) = match self {
            Self::PartFile { part, target, .. } => (part.truncate(), target),
            Self::Stream(_, name) => (Err(io::ErrorKind::NotSeekable.into()), name),
        };
        outcome.map_err(|error| ClientError::local("write", &*path, error))
    }

    /// Renames the file to its target and returns its path. Before, the file gets the permission bits `mode`
    /// as far as the umask allows; until then only its owner can read it. It is not synced: after a loss of
    /// power it must be downloaded again.
    pub(crate) fn commit(
        self,
        modified: Timestamp,
        mode: Option<FileMode>,
    ) -> Result<PathBuf, ClientError> {
        match self {
            Self::PartFile {
                part,
                target,
                if_exists,
                mode: default_mode,
            } => {
                let mode = mode.map_or(default_mode, |mode| mode.bits() & !umask());
                publish(part, FinalMetadata { modified, mode }, target, if_exists)
            }
            Self::Stream(mut stream, name) => match stream.flush() {
                Ok(()) => Ok(name),
                Err(error) => Err(ClientError::local("write", name, error)),
            },
        }
    }
}

/// Removes the part files of killed downloads from the directories of these targets, which the user named.
pub(crate) fn remove_stale_parts<'a>(targets: impl Iterator<Item = &'a Path>) {
    let directories: BTreeSet<_> = targets
        .map(|target| part_file::directory_of(&follow_link(target)).to_owned())
        .collect();
    for directory in directories {
        part_file::remove_stale(&directory);
    }
}

/// The target of a link, or the path itself.
fn follow_link(target: &Path) -> PathBuf {
    match target.canonicalize() {
        Ok(real) if target.is_symlink() => real,
        _ => target.to_owned(),
    }
}

fn publish(
    part: PartFile,
    metadata: FinalMetadata,
    target: PathBuf,
    if_exists: IfExists,
) -> Result<PathBuf, ClientError> {
    if if_exists == IfExists::Replace {
        return match part.persist(metadata, &target) {
            Ok(()) => Ok(target),
            Err(error) => Err(ClientError::local("write", target, error)),
        };
    }
    let renames = if if_exists == IfExists::Rename {
        MAX_RENAMES
    } else {
        0
    };
    let names = (0..=renames).map(|number| numbered(&target, number));
    match part.persist_new(metadata, names) {
        Ok(Some(path)) => Ok(path),
        Ok(None) => Err(ClientError::LocalExists(target)),
        Err((path, error)) => Err(ClientError::local("write", path, error)),
    }
}

/// `name.ext`, `name (1).ext`, `name (2).ext` and so on.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.into();
    }
    let name = path.file_name().unwrap_or_default();
    if let Some(name) = name.to_str() {
        return path.with_file_name(numbered_name(name, false, number));
    }
    // A name of this machine that is not UTF-8 cannot be cut between characters.
    let mut name = name.to_owned();
    name.push(format!(" ({number})"));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_extension() {
        let name = |text: &str| numbered(Path::new(text), 2).display().to_string();
        assert_eq!(name("/a/b.tar"), "/a/b (2).tar");
        assert_eq!(name("b"), "b (2)");
        assert_eq!(name(".profile"), ".profile (2)");
        let long = Path::new("/a").join(format!("{}.txt", "n".repeat(251)));
        let numbered = numbered(&long, 2);
        let numbered = numbered.file_name().expect("a name").to_string_lossy();
        assert!(numbered.len() == 255 && numbered.ends_with("n (2).txt"));
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a");
        let mut sink = LocalSink::named(&target, IfExists::Replace).expect("a target");
        sink.write(b"half").expect("written");
        drop(sink);
        let left = directory.path().read_dir().expect("readable").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn an_existing_file_is_replaced_or_kept_or_the_new_one_is_numbered() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("a.txt");
        let put = |text: &str, if_exists| {
            let mut sink = LocalSink::named(&target, if_exists)?;
            sink.write(text.as_bytes())?;
            sink.commit(Timestamp::UNIX_EPOCH, None)
        };
        assert_eq!(put("1", IfExists::Fail).expect("free"), target);
        assert_eq!(put("2", IfExists::Replace).expect("replaced"), target);
        assert!(matches!(
            put("3", IfExists::Fail),
            Err(ClientError::LocalExists(_))
        ));
        let numbered = put("4", IfExists::Rename).expect("another name");
        assert_eq!(numbered, directory.path().join("a (1).txt"));
        assert_eq!(std::fs::read_to_string(&target).expect("there"), "2");
        assert_eq!(std::fs::read_to_string(&numbered).expect("there"), "4");
    }

    #[test]
    fn a_replacement_keeps_the_permissions_without_the_set_user_id_bit() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("tool");
        std::fs::write(&target, "old").expect("written");
        let mode = std::fs::Permissions::from_mode(0o6751);
        std::fs::set_permissions(&target, mode).expect("set");
        let sink = LocalSink::named(&target, IfExists::Replace).expect("a target");
        sink.commit(Timestamp::UNIX_EPOCH, None).expect("placed");
        let mode = target.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o751);
    }

    #[test]
    fn a_file_is_its_owners_alone_until_it_has_the_mode_that_the_server_keeps() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("private.key");
        let mode_of = |path: &Path| {
            let mode = path.metadata().expect("there").permissions().mode();
            mode & 0o7777
        };
        let part_modes = || {
            let entries = directory.path().read_dir().expect("readable");
            let mut modes = entries.map(|entry| mode_of(&entry.expect("an entry").path()));
            (modes.next(), modes.next())
        };
        for (mode, expected) in [
            (Some(0o600), 0o600),
            (Some(0o755), 0o755 & !umask()),
            (None, 0o666 & !umask()),
        ] {
            let mut sink = LocalSink::named(&target, IfExists::Replace).expect("a target");
            sink.write(b"secret").expect("written");
            assert_eq!(part_modes(), (Some(0o600), None));
            let mode = mode.map(FileMode::from_st_mode);
            sink.commit(Timestamp::UNIX_EPOCH, mode).expect("placed");
            assert_eq!(mode_of(&target), expected);
            std::fs::remove_file(&target).expect("removed");
        }
    }

    #[test]
    fn a_link_that_the_user_named_is_followed_and_one_that_the_server_named_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&real, "old").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        let sink = LocalSink::named(&link, IfExists::Replace).expect("a target");
        assert_eq!(
            sink.commit(Timestamp::UNIX_EPOCH, None).expect("placed"),
            real
        );
        std::fs::write(&real, "kept").expect("written");
        let sink = LocalSink::create(&link, IfExists::Replace).expect("a target");
        assert_eq!(
            sink.commit(Timestamp::UNIX_EPOCH, None).expect("placed"),
            link
        );
        assert_eq!(std::fs::read_to_string(&real).expect("there"), "kept");
    }
}

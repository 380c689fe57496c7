//! Times and permission bits of the directories of a tree. They are set at the end: each new name in a
//! directory changes its time, and its permission bits may not allow any.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::client::transfer::umask::umask;
use crate::protocol::{Entry, FileMode};

/// The permission bits that the owner of a directory needs to fill it.
const OWNER_BITS: u32 = 0o700;

/// The metadata of a directory as the server lists it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DirectoryMetadata {
    modified: Timestamp,
    mode: Option<FileMode>,
}

impl From<&Entry> for DirectoryMetadata {
    fn from(entry: &Entry) -> Self {
        Self {
            modified: entry.modified,
            mode: entry.mode,
        }
    }
}

impl DirectoryMetadata {
    /// Creates a directory that is at no time more open than it will be.
    pub(super) fn create(self, path: &Path) -> io::Result<()> {
        let mode = self.mode.map_or(0o777, FileMode::bits);
        DirBuilder::new().mode(mode | OWNER_BITS).create(path)
    }

    /// Sets time and permission bits, the latter as far as the umask allows. Not every file system keeps
    /// them; the content is what matters.
    fn apply(self, path: &Path) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let dir: File = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        dir.set_modified(SystemTime::from(self.modified))?;
        if let Some(mode) = self.mode {
            dir.set_permissions(Permissions::from_mode(mode.bits() & !umask()))?;
        }
        Ok(())
    }
}

/// Directories that were filled, each after the one that it is in.
#[derive(Debug, Default)]
pub(super) struct FilledDirectories(Vec<(PathBuf, DirectoryMetadata)>);

impl FilledDirectories {
    pub(super) fn push(&mut self, path: PathBuf, metadata: DirectoryMetadata) {
        self.0.push((path, metadata));
    }

    /// Sets their times and permission bits, the deepest directory first. Blocks on the disk.
    pub(super) fn finish(self) {
        for (path, metadata) in self.0.into_iter().rev() {
            let _ = metadata.apply(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_get_time_and_mode_once_they_are_filled() {
        let place = tempfile::tempdir().expect("a directory");
        let (outer, inner) = (place.path().join("a"), place.path().join("a/b"));
        let metadata = |mode| DirectoryMetadata {
            modified: Timestamp::UNIX_EPOCH,
            mode: Some(FileMode::from_st_mode(mode)),
        };
        let mode_of = |path: &Path| {
            let mode = path.metadata().expect("there").permissions().mode();
            mode & 0o777
        };
        let mut filled = FilledDirectories::default();
        for (path, mode) in [(&outer, 0o500), (&inner, 0o700)] {
            metadata(mode).create(path).expect("created");
            assert_eq!(mode_of(path), 0o700);
            filled.push(path.clone(), metadata(mode));
        }
        std::fs::write(inner.join("file"), "").expect("written");
        let link = place.path().join("link");
        std::os::unix::fs::symlink("a", &link).expect("linked");
        filled.push(link, metadata(0o755));
        filled.finish();
        for (path, mode) in [(&outer, 0o500), (&inner, 0o700)] {
            assert_eq!(mode_of(path), mode);
            let modified = path.metadata().and_then(|there| there.modified());
            assert_eq!(modified.expect("a time"), SystemTime::UNIX_EPOCH);
        }
        std::fs::set_permissions(&outer, Permissions::from_mode(0o700)).expect("set");
    }
}

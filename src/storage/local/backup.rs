//! Backups: copies of homes and shared folders, made while a server may be changing them.
//!
//! Each file is copied from one open handle, so the copy is one content, whichever file has the
//! name afterwards. A file that moves from a directory that is not copied yet to one that is would
//! be in neither copy. All trees are therefore copied again, in passes, until nothing has changed
//! since the pass before. The backup then holds the state of all trees at the moment between the
//! two passes. An entry that is removed meanwhile may be in the backup or not.

use std::ffi::CString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::storage::local::backup_pass::{
    BackupPass, BackupWatcher, MAX_PASSES, is_stopped, open_or_make_dir,
};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;

/// How a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupOutcome {
    /// It has every entry that existed from its begin to its end.
    Complete,
    /// Something changed in every pass: an entry that was moved during the last one may be missing,
    /// and the files reported as [`BackupStep::Changing`](crate::storage::BackupStep::Changing) may be mixtures.
    Unstable,
    /// The watcher stopped it.
    Stopped,
}

/// A backup that is being made. It is complete once [`Self::finish`] has returned.
#[derive(Debug)]
pub struct Backup {
    from: OpenDir,
    to: OpenDir,
    path: PathBuf,
}

impl Backup {
    /// Begins a backup of the data directory `data` in the directory `to`, which is made, or must be
    /// empty. Only its owner can read it from then on. Nothing is copied yet.
    ///
    /// # Errors
    /// The system's error, or the reason why the backup cannot be in `to`.
    pub fn begin(data: &Path, to: &Path) -> io::Result<Self> {
        let from = OpenDir::open_ambient(data)?;
        refuse_inside(data, to)?;
        DirBuilder::new().recursive(true).mode(0o700).create(to)?;
        let opened = OpenDir::open_ambient(to)?;
        tree::for_each(&opened, |entry| match entry.file_name().to_bytes() {
            // Some file systems are made with this directory.
            b"lost+found" => Ok(()),
            _ => Err(io::Error::other(
                "it is not empty; name a new directory for each backup",
            )),
        })?;
        std::fs::set_permissions(to, Permissions::from_mode(0o700))?;
        Ok(Self {
            from,
            to: opened,
            path: to.to_owned(),
        })
    }

    /// The directory of the backup.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the trees at `paths` of the data directory, such as `homes/alice`, with times and
    /// extended attributes. A path without a directory is skipped.
    ///
    /// # Errors
    /// The system's error. An entry that cannot be read is no error: see [`BackupStep::LeftOut`](crate::storage::BackupStep::LeftOut).
    pub fn copy(&self, paths: &[PathBuf], watcher: BackupWatcher<'_>) -> io::Result<BackupOutcome> {
        let mut pass = BackupPass::new(watcher);
        for _ in 0..MAX_PASSES {
            pass.begin();
            for path in paths {
                let Some((from, to)) = self.open(path)? else {
                    continue;
                };
                match pass.copy_tree(path, &from, &to) {
                    Err(error) if is_stopped(&error) => return Ok(BackupOutcome::Stopped),
                    copied => copied?,
                }
            }
            if !pass.has_changes() {
                return Ok(BackupOutcome::Complete);
            }
        }
        pass.report_changing()?;
        Ok(BackupOutcome::Unstable)
    }

    /// Removes the copy of `path` again, if there is one.
    ///
    /// # Errors
    /// The system's error.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let mut dir = self.to.open_dir(c".")?;
        for name in path.parent().into_iter().flat_map(Path::components) {
            match dir.open_dir(name.as_os_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => dir = opened?,
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = CString::new(name.into_owned())?;
        match tree::delete(&dir, &name).failed {
            Some(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until the backup is on the disk, and only then renames its last file from `from` to
    /// `name`.
    ///
    /// # Errors
    /// The system's error.
    pub fn finish(&self, from: &str, name: &str) -> io::Result<()> {
        self.to.sync_file_system()?;
        self.to.rename_new(from, &self.to, name)?;
        self.to.sync()
    }

    /// The directory at `path`, and the directory that it is copied to.
    fn open(&self, path: &Path) -> io::Result<Option<(OpenDir, OpenDir)>> {
        let (mut from, mut to) = (self.from.open_dir(c".")?, self.to.open_dir(c".")?);
        for name in path {
            from = match from.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            to = open_or_make_dir(&to, name)?;
        }
        Ok(Some((from, to)))
    }
}

/// Refuses a backup inside the data directory before anything is made there.
fn refuse_inside(data: &Path, to: &Path) -> io::Result<()> {
    let to = std::path::absolute(to)?;
    let existing = to.ancestors().find_map(|path| path.canonicalize().ok());
    let is_inside = existing.is_some_and(|existing| {
        data.canonicalize()
            .is_ok_and(|data| existing.starts_with(data))
    });
    if is_inside {
        return Err(io::Error::other(
            "it is inside the data directory; name one outside",
        ));
    }
    Ok(())
}

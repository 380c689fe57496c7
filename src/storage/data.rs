//! Whether a server can work with its data directory, found out before anybody relies on it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::StorageError;
use super::jail::OpenDir;

/// A name that can be no user's and no folder's, for a file that is moved about once.
const PROBE: &str = "~probe";

/// Finds out whether uploads can be made and moved into their places. A disk without room is no
/// reason not to serve: its files can be read, and removing some makes room.
pub(super) fn try_out(staging: &OpenDir, areas: &[(&str, &OpenDir)]) -> io::Result<()> {
    match probe(staging, areas) {
        Err(error) if is_out_of_room(&error) => {
            tracing::warn!(
                name: "disk_full",
                %error,
                "nothing can be put for now: the disk has no room"
            );
            Ok(())
        }
        probed => probed,
    }
}

fn is_out_of_room(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOSPC | Errno::DQUOT))
}

/// Makes a file in staging, has it last, and moves it where the files of users go, as every upload
/// will be.
fn probe(staging: &OpenDir, areas: &[(&str, &OpenDir)]) -> io::Result<()> {
    // Left behind where a server was killed at this very moment.
    let _ = staging.remove_file(PROBE);
    let mut file = staging.create_file(PROBE)?;
    let tried = write(&mut file).and_then(|()| {
        areas.iter().try_for_each(|(name, area)| {
            staging
                .rename_over(PROBE, area, PROBE)
                .and_then(|()| area.rename_over(PROBE, staging, PROBE))
                .map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::XDEV) => apart(name),
                    _ => error,
                })
        })
    });
    staging.remove_file(PROBE)?;
    tried
}

fn write(file: &mut File) -> io::Result<()> {
    file.write_all(&[0; 4096])?;
    file.sync_all()
}

fn apart(area: &str) -> io::Error {
    io::Error::other(format!(
        "its directories staging and {area} are on different file systems, between which no file \
         can be moved at once; mount one volume over the whole directory"
    ))
}

/// Refuses a directory that holds no accounts and is no mounted volume.
///
/// # Errors
/// [`StorageError::Unusable`].
pub fn check_mounted(data: &Path) -> Result<(), StorageError> {
    let mounted = || -> io::Result<bool> {
        if data.join("haul.db").try_exists()? {
            return Ok(true);
        }
        Ok(mount_of(data)? != mount_of(&data.join(".."))?)
    };
    let reason = match mounted() {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(data, &error));
        }
        Ok(false) | Err(_) => {
            "it holds no accounts and is no mounted volume; mount the volume there, or begin anew \
             with server.require_mount = false"
        }
    };
    Err(StorageError::Unusable {
        path: data.display().to_string(),
        reason: reason.into(),
    })
}

/// Which mount a path is on: a directory that is mounted on the same file system is another, too.
fn mount_of(path: &Path) -> io::Result<(u64, u32, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor))
}

/// What is wrong with the data directory, and what to do, for the person who starts the server.
pub(super) fn unusable(data: &Path, error: &io::Error) -> StorageError {
    StorageError::Unusable {
        path: data.display().to_string(),
        reason: reason(data, error),
    }
}

fn reason(data: &Path, error: &io::Error) -> String {
    let mut errno = Errno::from_io_error(error);
    if errno == Some(Errno::EXIST) {
        // A link is in the way of a new directory, wherever it leads; where it does is the reason.
        errno =
            std::fs::metadata(data).map_or_else(|error| Errno::from_io_error(&error), |_| errno);
    }
    let advice = match errno {
        Some(Errno::NOTDIR | Errno::EXIST) => {
            "a file is in the way; name a directory with --data or server.data"
        }
        Some(Errno::LOOP) => "its symbolic links lead in a circle; name the directory itself",
        Some(Errno::NOENT) => "it is a symbolic link that leads nowhere; is a volume not mounted?",
        Some(Errno::ROFS) => "the file system is read-only; mount it for writing",
        Some(Errno::NOSPC) => "the disk has no room or no inodes left; free some",
        Some(Errno::DQUOT) => "the disk quota of the user that haul runs as is used up; raise it",
        Some(Errno::ACCESS | Errno::PERM) => return not_allowed(data),
        _ => return error.to_string(),
    };
    advice.into()
}

fn not_allowed(data: &Path) -> String {
    let own = geteuid().as_raw();
    // The nearest directory that is there is the one that refused.
    let found = data.ancestors().find_map(|path| {
        let owner = std::fs::metadata(path).ok()?.uid();
        Some((path, owner))
    });
    match found {
        Some((path, owner)) if owner != own => format!(
            "{} belongs to user {owner} and haul runs as user {own}, who may not write there; \
             give it to that user with chown, or run haul as its owner",
            path.display()
        ),
        _ => format!("user {own}, as whom haul runs, may not write there; allow it with chmod"),
    }
}

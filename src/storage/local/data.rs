//! Checks of the data directory before a server accepts files for it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::storage::error::StorageError;
use crate::storage::local::fs::sandbox::OpenDir;

/// The name of the probe file. No user and no folder can have it.
const PROBE_NAME: &str = "~probe";

/// Checks that uploads can be written and published. A full disk is no error: its files can be read,
/// and removed to free some.
pub(crate) fn check_writable(staging: &OpenDir, areas: &[(&str, &OpenDir)]) -> io::Result<()> {
    match probe(staging, areas) {
        Err(error) if is_out_of_room(&error) => {
            tracing::warn!(
                name: "disk_full",
                %error,
                "the disk is full: clients cannot upload until somebody frees space"
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

/// Makes and syncs a file in staging, and moves it to each area and back, as an upload does.
fn probe(staging: &OpenDir, areas: &[(&str, &OpenDir)]) -> io::Result<()> {
    // An earlier server may have been killed at this point.
    let _ = staging.remove_file(PROBE_NAME);
    let mut file = staging.create_file(PROBE_NAME)?;
    let tried = write(&mut file).and_then(|()| {
        areas.iter().try_for_each(|(name, area)| {
            staging
                .rename_over(PROBE_NAME, area, PROBE_NAME)
                .and_then(|()| area.rename_over(PROBE_NAME, staging, PROBE_NAME))
                .map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::XDEV) => different_file_systems(name),
                    _ => error,
                })
        })
    });
    staging.remove_file(PROBE_NAME)?;
    tried
}

fn write(file: &mut File) -> io::Result<()> {
    file.write_all(&[0; 4096])?;
    file.sync_all()
}

fn different_file_systems(area: &str) -> io::Error {
    io::Error::other(format!(
        "its directories staging and {area} are on different file systems, so the server cannot move \
         files between them; mount one volume over the whole directory"
    ))
}

/// Refuses a data directory without accounts that is not a mounted volume, or is a volume without a
/// name.
///
/// # Errors
/// [`StorageError::Unusable`].
pub fn check_mounted(data: &Path) -> Result<(), StorageError> {
    let reason = match mounted_kind(data) {
        Ok(MountedKind::Accounts | MountedKind::Volume) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(data, &error));
        }
        Ok(MountedKind::Nameless) => {
            "it holds no accounts and is a volume without a name, which you could not find again; \
             name one, as in `docker run -v haul:/data`, or start with an empty directory by \
             server.require_mount = false"
        }
        Ok(MountedKind::Nothing) | Err(_) => {
            "it holds no accounts and is not a mounted volume; mount the volume there, or start with an \
             empty directory by server.require_mount = false"
        }
    };
    Err(StorageError::Unusable {
        path: data.display().to_string(),
        reason: reason.into(),
    })
}

/// The kind of a data directory.
enum MountedKind {
    /// It has accounts, so it is the right one.
    Accounts,
    Volume,
    /// A volume that a container engine has made because nobody named one.
    Nameless,
    Nothing,
}

fn mounted_kind(data: &Path) -> io::Result<MountedKind> {
    if data.join("haul.db").try_exists()? {
        return Ok(MountedKind::Accounts);
    }
    let mount = mount_of(data)?;
    if mount == mount_of(&data.join(".."))? {
        return Ok(MountedKind::Nothing);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(match root_of(mount.0, &mounts) {
        Some(root) if is_nameless(root) => MountedKind::Nameless,
        _ => MountedKind::Volume,
    })
}

/// The mount of a path. Two mounts of one file system differ.
fn mount_of(path: &Path) -> io::Result<(u64, u32, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor))
}

/// The directory of its file system that a mount shows: the fourth field of its line, see
/// `proc_pid_mountinfo(5)`.
fn root_of(mount: u64, mounts: &str) -> Option<&str> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let mut fields = lines.find(|fields| fields.clone().next() == Some(&mount.to_string()))?;
    fields.nth(3)
}

/// Whether a container engine has generated the name of a volume: Docker, Podman and containerd use
/// 64 hexadecimal digits, for a directory that is the volume or holds it as `_data`.
fn is_nameless(root: &str) -> bool {
    let name = root.strip_suffix("/_data").unwrap_or(root);
    let name = name.rsplit('/').next().unwrap_or_default();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Directories that files are moved to. A mount inside them cannot take any.
const MOVE_TARGETS: [&str; 3] = ["homes", "folders", "removed"];

/// The most mounts that are logged.
const MAX_LOGGED_MOUNTS: usize = 16;

/// Logs file systems that are mounted inside the data directory, to which no file can be moved.
pub(crate) fn warn_of_mounts(data: &Path) {
    let Ok(data) = data.canonicalize() else {
        return;
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let inside = mount_points(&mounts).filter(|point| {
        MOVE_TARGETS
            .iter()
            .any(|area| point.starts_with(data.join(area)))
    });
    for point in inside.take(MAX_LOGGED_MOUNTS) {
        tracing::warn!(
            name: "mounted_inside",
            path = %point.display(),
            "a file system is mounted inside the data directory: clients cannot upload to it"
        );
    }
}

/// The mount points: the fifth field of each line, see `proc_pid_mountinfo(5)`.
fn mount_points(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let field = line.split(' ').nth(4)?;
        Some(OsString::from_vec(unescape(field)).into())
    })
}

/// Decodes a field in which spaces, tabs, line breaks and backslashes are written as a backslash and
/// three octal digits.
fn unescape(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = field
            .get(field.len() - behind.len()..)
            .and_then(|text| text.get(..3));
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// The error for a data directory that cannot be used: the problem, and what to do.
pub(crate) fn unusable(data: &Path, error: &io::Error) -> StorageError {
    StorageError::Unusable {
        path: data.display().to_string(),
        reason: reason(data, error),
    }
}

fn reason(data: &Path, error: &io::Error) -> String {
    let mut errno = Errno::from_io_error(error);
    if errno == Some(Errno::EXIST) {
        // The directory is a symbolic link; the reason is in its target.
        errno =
            std::fs::metadata(data).map_or_else(|error| Errno::from_io_error(&error), |_| errno);
    }
    let advice = match errno {
        Some(Errno::NOTDIR | Errno::EXIST) => {
            "a part of the path is a file; name a directory with --data or server.data"
        }
        Some(Errno::LOOP) => "its symbolic links form a loop; name the directory itself",
        Some(Errno::NOENT) if !data.is_symlink() => {
            "no directory can be made there; name another one with --data or server.data"
        }
        Some(Errno::NOENT) => {
            "it is a symbolic link to a path that does not exist; check that the volume is mounted"
        }
        Some(Errno::ROFS) => "the file system is read-only; mount it for writing",
        Some(Errno::NOSPC) => "the disk has no free space or no free inodes; free some",
        Some(Errno::DQUOT) => "the disk quota of the user who runs haul is used up; raise it",
        Some(Errno::ACCESS | Errno::PERM) => return not_allowed(data),
        _ => return error.to_string(),
    };
    advice.into()
}

fn not_allowed(data: &Path) -> String {
    let own = geteuid().as_raw();
    // The nearest existing directory is the one that refused.
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
        _ => format!("haul runs as user {own}, who may not write there; allow it with chmod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_nameless_if_an_engine_generated_its_name() {
        let digits = "4f".repeat(32);
        for (root, nameless) in [
            (format!("/var/lib/docker/volumes/{digits}/_data"), true),
            (format!("/{digits}/_data"), true),
            (
                format!("/containerd/containers/{digits}/volumes/{digits}"),
                true,
            ),
            (format!("/srv/{digits}/haul"), false),
            ("/var/lib/docker/volumes/haul/_data".into(), false),
            ("/srv/haul".into(), false),
            ("/".into(), false),
        ] {
            assert_eq!(is_nameless(&root), nameless, "{root}");
        }
    }

    #[test]
    fn mount_points_are_decoded() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      22 21 0:30 / /data/homes/a\\040b\\134c/ä rw - tmpfs haul rw\n\
                      odd line\n";
        let points: Vec<_> = mount_points(mounts).collect();
        assert_eq!(points, [Path::new("/"), Path::new("/data/homes/a b\\c/ä")]);
    }

    #[test]
    fn the_root_of_a_mount_is_read_from_its_line() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      210 21 254:0 /docker/volumes/haul/_data /data rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(root_of(210, mounts), Some("/docker/volumes/haul/_data"));
        assert_eq!(root_of(21, mounts), Some("/"));
        assert_eq!(root_of(2, mounts), None);
    }
}

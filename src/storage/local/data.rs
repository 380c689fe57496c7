//! Whether a server can work with its data directory, found out before anybody relies on it.

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

/// A name that can be no user's and no folder's, for a file that is moved about once.
const PROBE: &str = "~probe";

/// Finds out whether uploads can be made and moved into their places. A disk without room is no
/// reason not to serve: its files can be read, and removing some makes room.
pub(crate) fn try_out(staging: &OpenDir, areas: &[(&str, &OpenDir)]) -> io::Result<()> {
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

/// Refuses a directory that holds no accounts and is no mounted volume, or one that nobody named.
///
/// # Errors
/// [`StorageError::Unusable`].
pub fn check_mounted(data: &Path) -> Result<(), StorageError> {
    let reason = match what_is_mounted(data) {
        Ok(Mounted::Accounts | Mounted::Volume) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(data, &error));
        }
        Ok(Mounted::Nameless) => {
            "it holds no accounts and is a volume without a name, which nobody would find again; \
             name one, as in `docker run -v haul:/data`, or begin anew with \
             server.require_mount = false"
        }
        Ok(Mounted::Nothing) | Err(_) => {
            "it holds no accounts and is no mounted volume; mount the volume there, or begin anew \
             with server.require_mount = false"
        }
    };
    Err(StorageError::Unusable {
        path: data.display().to_string(),
        reason: reason.into(),
    })
}

/// What a data directory is.
enum Mounted {
    /// It was served before, so that it is the right one whatever it is.
    Accounts,
    Volume,
    /// What an engine makes for an image that wants a volume, if nobody says which.
    Nameless,
    Nothing,
}

fn what_is_mounted(data: &Path) -> io::Result<Mounted> {
    if data.join("haul.db").try_exists()? {
        return Ok(Mounted::Accounts);
    }
    let mount = mount_of(data)?;
    if mount == mount_of(&data.join(".."))? {
        return Ok(Mounted::Nothing);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(match root_of(mount.0, &mounts) {
        Some(root) if is_nameless(root) => Mounted::Nameless,
        _ => Mounted::Volume,
    })
}

/// Which mount a path is on: a directory that is mounted on the same file system is another, too.
fn mount_of(path: &Path) -> io::Result<(u64, u32, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
    Ok((found.stx_mnt_id, found.stx_dev_major, found.stx_dev_minor))
}

/// Which directory of its file system a mount shows: the fourth field of its line, see
/// `proc_pid_mountinfo(5)`.
fn root_of(mount: u64, mounts: &str) -> Option<&str> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let mut fields = lines.find(|fields| fields.clone().next() == Some(&mount.to_string()))?;
    fields.nth(3)
}

/// Whether an engine made up the name of a volume: Docker, Podman and containerd take 64 hexadecimal
/// digits, for a directory that is the volume or holds it as `_data`.
fn is_nameless(root: &str) -> bool {
    let name = root.strip_suffix("/_data").unwrap_or(root);
    let name = name.rsplit('/').next().unwrap_or_default();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Directories in which a mount is in the way of what is moved there.
const MOVED_INTO: [&str; 3] = ["homes", "folders", "removed"];

/// Mounts that the log is told of at most.
const MAX_TOLD_MOUNTS: usize = 16;

/// Warns of file systems that are mounted inside the data directory, where nothing can be put.
pub(crate) fn warn_of_mounts(data: &Path) {
    let Ok(data) = data.canonicalize() else {
        return;
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let inside = mount_points(&mounts).filter(|point| {
        MOVED_INTO
            .iter()
            .any(|area| point.starts_with(data.join(area)))
    });
    for point in inside.take(MAX_TOLD_MOUNTS) {
        tracing::warn!(
            name: "mounted_inside",
            path = %point.display(),
            "a file system is mounted inside the data directory: nothing can be put there"
        );
    }
}

/// Where something is mounted: the fifth field of each line, see `proc_pid_mountinfo(5)`.
fn mount_points(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let field = line.split(' ').nth(4)?;
        Some(OsString::from_vec(unescaped(field)).into())
    })
}

/// Spaces, tabs, line breaks and backslashes are in such a field as a backslash and three octal
/// digits.
fn unescaped(field: &str) -> Vec<u8> {
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

/// What is wrong with the data directory, and what to do, for the person who starts the server.
pub(crate) fn unusable(data: &Path, error: &io::Error) -> StorageError {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_nameless_if_an_engine_made_up_its_name() {
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
    fn a_mount_point_is_read_with_its_spaces() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      22 21 0:30 / /data/homes/a\\040b\\134c/ä rw - tmpfs haul rw\n\
                      odd line\n";
        let points: Vec<_> = mount_points(mounts).collect();
        assert_eq!(points, [Path::new("/"), Path::new("/data/homes/a b\\c/ä")]);
    }

    #[test]
    fn the_root_of_a_mount_stands_in_its_line() {
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      210 21 254:0 /docker/volumes/haul/_data /data rw,relatime - ext4 /dev/vda rw\n";
        assert_eq!(root_of(210, mounts), Some("/docker/volumes/haul/_data"));
        assert_eq!(root_of(21, mounts), Some("/"));
        assert_eq!(root_of(2, mounts), None);
    }
}

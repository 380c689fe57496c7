//! Digests of stored files: computed once, and kept beside the content in an extended attribute.
//!
//! ```text
//! user.haul.<algorithm> = size ' ' seconds '.' nanoseconds ' ' alg:hex
//! ```
//!
//! Size and modification time say which content the digest is of; where they differ from the
//! file's the digest is stale. Where they agree and the bytes do not, the disk has rotted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};

use super::error::{At, StorageError};
use super::meta::Meta;
use super::path::VirtualPath;
use crate::protocol::{Algorithm, Digest, Hasher};

/// Bytes read at a time.
const PIECE: usize = 256 * 1024;

/// Longer than any kept digest.
const MAX_VALUE: usize = 256;

/// Keeps `digest` beside the content of `file`, which `meta` describes.
pub(super) fn keep(file: &File, meta: &Meta, digest: &Digest) -> io::Result<()> {
    let value = format!("{}{digest}", stamp(meta));
    let name = attribute(digest.algorithm());
    Ok(fsetxattr(
        file,
        name,
        value.as_bytes(),
        XattrFlags::empty(),
    )?)
}

/// The digest kept for the content that `meta` describes, if there is one.
pub(super) fn kept(file: &File, meta: &Meta, algorithm: Algorithm) -> Option<Digest> {
    let mut value = [0; MAX_VALUE];
    let length = fgetxattr(file, attribute(algorithm), &mut value).ok()?;
    let text = str::from_utf8(value.get(..length)?).ok()?;
    let digest: Digest = text.strip_prefix(&stamp(meta))?.parse().ok()?;
    (digest.algorithm() == algorithm).then_some(digest)
}

/// Any digest that is kept, the default algorithm's first.
pub(super) fn any_kept(file: &File, meta: &Meta) -> Option<Digest> {
    Algorithm::ALL
        .into_iter()
        .find_map(|algorithm| kept(file, meta, algorithm))
}

/// Forgets what is kept for a file whose content will be another.
pub(super) fn forget(file: &File) {
    for algorithm in Algorithm::ALL {
        // Most often there is none, and some file systems keep none.
        let _ = fremovexattr(file, attribute(algorithm));
    }
}

/// Reads the whole file.
///
/// # Errors
/// What the system said.
pub(super) fn compute(
    file: &File,
    algorithm: Algorithm,
    path: &VirtualPath,
) -> Result<Digest, StorageError> {
    let mut hasher = Hasher::new(algorithm);
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                hasher.update(&piece[..length]);
                offset += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}

fn attribute(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Blake3 => "user.haul.blake3",
        Algorithm::Sha256 => "user.haul.sha256",
        Algorithm::Md5 => "user.haul.md5",
    }
}

fn stamp(meta: &Meta) -> String {
    let (seconds, nanoseconds) = meta.modified;
    format!("{} {seconds}.{nanoseconds:09} ", meta.size)
}

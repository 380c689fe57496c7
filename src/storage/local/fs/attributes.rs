//! Attributes: the version and the digests of a content, kept with the file in one extended
//! attribute.
//!
//! ```text
//! user.haul.content = size ' ' seconds '.' nanoseconds ' ' version { ' ' alg:hex }
//! ```
//!
//! Every publication draws a random version. Size and modification time bind the attribute to its
//! content: it is stale if they differ from the file's. A backup restores both, so versions and
//! digests survive one. The attribute does not hold the inode or the change time, which a restore
//! does not keep.
//!
//! A file without a valid attribute has a version that is derived from its metadata: see
//! [`Metadata::derived_version`].
//!
//! Earlier releases kept each digest in its own attribute `user.haul.<algorithm>`, without a version.
//! They are read if a file has no newer attribute.

use std::fmt::Write as _;
use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};

use crate::protocol::{Algorithm, Digest};
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::random_name;
use crate::storage::path::VirtualPath;

/// The name of the attribute.
const ATTRIBUTE_NAME: &str = "user.haul.content";

/// Longer than a version with a digest of every algorithm.
const MAX_VALUE_BYTES: usize = 512;

/// Hex digits of a version.
const VERSION_DIGITS: usize = 32;

/// The version and the digests of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    version: String,
    digests: Vec<Digest>,
}

impl Attributes {
    /// Draws the version of a new content.
    pub(crate) fn draw(digests: &[Digest]) -> io::Result<Self> {
        Ok(Self {
            version: random_name()?,
            digests: digests.to_vec(),
        })
    }

    /// The attributes of the content of `file` that `meta` describes.
    pub(crate) fn of(file: &File, meta: &Metadata) -> Self {
        Self::read(file, meta).unwrap_or_else(|| Self {
            version: meta.derived_version(),
            digests: Algorithm::ALL
                .into_iter()
                .filter_map(|algorithm| read_legacy_digest(file, meta, algorithm))
                .collect(),
        })
    }

    /// The attributes that are kept for the content of `file` that `meta` describes.
    pub(crate) fn read(file: &File, meta: &Metadata) -> Option<Self> {
        let mut value = [0; MAX_VALUE_BYTES];
        let mut words = read_value(file, meta, ATTRIBUTE_NAME, &mut value)?.split(' ');
        let version = words.next().filter(|word| is_version(word))?.to_owned();
        let digests = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { version, digests })
    }

    /// Keeps the attributes for the content of `file` that `meta` describes.
    ///
    /// # Errors
    /// The error of the system; some file systems keep no attributes.
    pub(crate) fn keep(&self, file: &File, meta: &Metadata) -> io::Result<()> {
        let mut value = format!("{}{}", stamp(meta), self.version);
        for digest in &self.digests {
            // Writing to a `String` cannot fail.
            let _ = write!(value, " {digest}");
        }
        let value = value.as_bytes();
        Ok(fsetxattr(file, ATTRIBUTE_NAME, value, XattrFlags::empty())?)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn into_version(self) -> String {
        self.version
    }

    pub(crate) fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The digest by `algorithm`, if it is kept.
    pub(crate) fn digest(&self, algorithm: Algorithm) -> Option<Digest> {
        let mut digests = self.digests.iter();
        digests
            .find(|digest| digest.algorithm() == algorithm)
            .copied()
    }

    /// Any digest that is kept, the default algorithm's first.
    pub(crate) fn any_digest(&self) -> Option<Digest> {
        Algorithm::ALL
            .into_iter()
            .find_map(|algorithm| self.digest(algorithm))
    }

    /// Adds a digest of the content.
    pub(crate) fn add(&mut self, digest: Digest) {
        self.digests
            .retain(|kept| kept.algorithm() != digest.algorithm());
        self.digests.push(digest);
    }
}

/// Removes the attributes of a file whose content is about to change.
pub(crate) fn remove_attributes(file: &File) {
    // Most files have none, and some file systems keep none.
    let _ = fremovexattr(file, ATTRIBUTE_NAME);
    for algorithm in Algorithm::ALL {
        let _ = fremovexattr(file, legacy_name(algorithm));
    }
}

/// Keeps the derived version of the file `name`. The caller is about to move the file, which changes
/// the metadata that the version is derived from.
pub(crate) fn keep_derived_version(dir: &OpenDir, name: &str) {
    if let Ok((file, meta)) = dir.open_file(name)
        && meta.kind == EntryKind::File
        && Attributes::read(&file, &meta).is_none()
    {
        // Without attributes, the file gets a new version by the move.
        let _ = Attributes::of(&file, &meta).keep(&file, &meta);
    }
}

/// Draws a version for the new content of `file`, which `meta` describes, and keeps it with the
/// digests. Returns it, or `None` if the file system keeps no attributes.
pub(crate) fn keep_new_version(
    file: &File,
    meta: &Metadata,
    path: &VirtualPath,
    digests: &[Digest],
) -> io::Result<Option<String>> {
    let attributes = Attributes::draw(digests)?;
    if let Err(error) = attributes.keep(file, meta) {
        tracing::debug!(
            name: "digest_not_kept",
            %error,
            path = %path,
            "the file system did not keep the version and the digest of a file"
        );
        return Ok(None);
    }
    Ok(Some(attributes.version))
}

fn is_version(word: &str) -> bool {
    word.len() == VERSION_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read_legacy_digest(file: &File, meta: &Metadata, algorithm: Algorithm) -> Option<Digest> {
    let mut value = [0; MAX_VALUE_BYTES];
    let text = read_value(file, meta, legacy_name(algorithm), &mut value)?;
    let digest: Digest = text.parse().ok()?;
    (digest.algorithm() == algorithm).then_some(digest)
}

/// The text after the stamp, if the attribute exists and is not stale.
fn read_value<'a>(
    file: &File,
    meta: &Metadata,
    name: &str,
    value: &'a mut [u8; MAX_VALUE_BYTES],
) -> Option<&'a str> {
    let length = fgetxattr(file, name, &mut *value).ok()?;
    let text = str::from_utf8(value.get(..length)?).ok()?;
    text.strip_prefix(&stamp(meta))
}

fn legacy_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Blake3 => "user.haul.blake3",
        Algorithm::Sha256 => "user.haul.sha256",
        Algorithm::Md5 => "user.haul.md5",
    }
}

fn stamp(meta: &Metadata) -> String {
    let (seconds, nanoseconds) = meta.modified;
    format!("{} {seconds}.{nanoseconds:09} ", meta.size)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::protocol::Hasher;

    fn file() -> (File, Metadata) {
        let file = tempfile::tempfile().expect("a file");
        let meta = Metadata::of_open(&file).expect("its metadata");
        (file, meta)
    }

    fn digest(algorithm: Algorithm) -> Digest {
        Hasher::new(algorithm).finish()
    }

    #[test]
    fn version_and_digests_are_read_as_they_were_kept() {
        let (file, meta) = file();
        let all = Algorithm::ALL.map(digest);
        let mut kept = Attributes::draw(&all[..1]).expect("random bytes");
        kept.keep(&file, &meta).expect("kept");
        assert_eq!(Attributes::read(&file, &meta), Some(kept.clone()));
        for digest in all {
            kept.add(digest);
        }
        kept.keep(&file, &meta).expect("kept");
        let read = Attributes::of(&file, &meta);
        assert_eq!(read, kept);
        assert_eq!(Algorithm::ALL.map(|one| read.digest(one)), all.map(Some));
        assert_eq!(read.any_digest(), Some(all[0]));
        assert_ne!(
            read.version,
            Attributes::draw(&[]).expect("random bytes").version
        );
    }

    #[test]
    fn attributes_of_another_size_or_time_are_stale() {
        let (file, meta) = file();
        let kept = Attributes::draw(&[digest(Algorithm::Md5)]).expect("random bytes");
        kept.keep(&file, &meta).expect("kept");
        file.set_len(1).expect("written");
        let longer = Metadata::of_open(&file).expect("its metadata");
        assert_eq!(Attributes::read(&file, &longer), None);
        assert_eq!(Attributes::of(&file, &longer).any_digest(), None);
        file.set_len(0).expect("written");
        let later = SystemTime::now() + Duration::from_mins(1);
        file.set_modified(later).expect("set");
        let later = Metadata::of_open(&file).expect("its metadata");
        assert_eq!(Attributes::read(&file, &later), None);
        remove_attributes(&file);
        assert_eq!(Attributes::read(&file, &meta), None);
    }

    #[test]
    fn digests_of_earlier_releases_are_read() {
        let (file, meta) = file();
        let md5 = digest(Algorithm::Md5);
        let value = format!("{}{md5}", stamp(&meta));
        let name = legacy_name(Algorithm::Md5);
        fsetxattr(&file, name, value.as_bytes(), XattrFlags::empty()).expect("kept");
        let read = Attributes::of(&file, &meta);
        assert_eq!(read.digests, [md5]);
        assert_eq!(read.version, meta.derived_version());
    }

    #[test]
    fn an_attribute_of_another_form_is_ignored() {
        let (file, meta) = file();
        let version = "0".repeat(VERSION_DIGITS);
        for value in [
            String::new(),
            stamp(&meta),
            format!("{}short", stamp(&meta)),
            format!("{}{version} md5:short", stamp(&meta)),
            format!("{}{}", stamp(&meta), "x".repeat(1000)),
            version,
        ] {
            fsetxattr(&file, ATTRIBUTE_NAME, value.as_bytes(), XattrFlags::empty()).expect("kept");
            assert_eq!(Attributes::read(&file, &meta), None, "{value}");
        }
    }
}

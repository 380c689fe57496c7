//! A sealed staged file: all its bytes are written, and it has its time, version and digest.

use std::fs::File;
use std::io;

use crate::protocol::Digest;
use crate::storage::local::fs::attributes::keep_new_version;
use crate::storage::local::fs::metadata::{Metadata, set_modification_time};
use crate::storage::local::fs::mode::keep_mode;
use crate::storage::local::upload::request::UploadOptions;
use crate::storage::path::VirtualPath;

/// The properties of a sealed file. It is not synced yet.
#[derive(Debug)]
pub(crate) struct SealedFile {
    pub(crate) meta: Metadata,
    pub(crate) digest: Digest,
    /// Absent if the file system keeps no attributes.
    version: Option<String>,
}

impl SealedFile {
    /// Gives `file` the time and the mode of `options`, and a version that it keeps with its digest.
    pub(crate) fn seal(
        file: &File,
        path: &VirtualPath,
        options: &UploadOptions,
        digest: Digest,
    ) -> io::Result<Self> {
        if let Some(modified) = options.modified {
            set_modification_time(file, modified)?;
        }
        if let Some(mode) = options.mode {
            keep_mode(file, mode)?;
        }
        let meta = Metadata::of_open(file)?;
        let version = keep_new_version(file, &meta, path, &[digest])?;
        Ok(Self {
            meta,
            digest,
            version,
        })
    }

    /// The version of the file once it is published. Without attributes the version is derived from
    /// the `published` metadata, since publication changes them.
    pub(crate) fn version(&self, published: impl FnOnce() -> Option<Metadata>) -> String {
        self.version.clone().unwrap_or_else(|| {
            let published = published().filter(|meta| meta.is_same_content(&self.meta));
            published.as_ref().unwrap_or(&self.meta).derived_version()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Algorithm, Hasher};

    #[test]
    fn without_attributes_the_version_is_that_of_the_file_under_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (staged, named) = (dir.path().join("staged"), dir.path().join("named"));
        let file = File::create(&staged).expect("made");
        let sealed = SealedFile {
            meta: Metadata::of_open(&file).expect("its metadata"),
            digest: Hasher::new(Algorithm::Blake3).finish(),
            version: None,
        };
        std::fs::rename(&staged, &named).expect("moved");
        let found = Metadata::of_open(File::open(&named).expect("opened")).expect("its metadata");
        let version = sealed.version(|| Metadata::of_open(&file).ok());
        assert_eq!(version, found.derived_version());
        // Another file may have the name by then.
        let other = Metadata::of_open(tempfile::tempfile().expect("a file")).ok();
        assert_eq!(sealed.version(|| other), sealed.meta.derived_version());
    }
}

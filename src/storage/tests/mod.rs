//! Tests of storage through its public types: a data directory, members, and failures.

pub(crate) mod access;
pub(crate) mod already_committed;
pub(crate) mod backups;
pub(crate) mod batches;
pub(crate) mod changes;
pub(crate) mod copies;
pub(crate) mod data;
pub(crate) mod disks;
pub(crate) mod failing;
pub(crate) mod files;
pub(crate) mod links;
pub(crate) mod listings;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod quota_model;
pub(crate) mod quotas;
pub(crate) mod races;
pub(crate) mod resume;
pub(crate) mod rights;
pub(crate) mod trees;
pub(crate) mod uploads;
pub(crate) mod versions;
pub(crate) mod walks;

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::protocol::{Algorithm, Digest, IfExists};
use crate::storage::*;

/// A data directory with the home of alice in view.
pub(crate) struct TestStore {
    dir: TempDir,
    store: Store,
    home: Arc<Space>,
    view: View,
}

impl TestStore {
    fn new() -> Self {
        Self::with_limits(SpaceLimits::default())
    }

    fn with_limits(limits: SpaceLimits) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("data")).expect("a store");
        let home = store.home("alice", limits).expect("a home");
        let view = View::new(&store, Arc::clone(&home), Vec::new());
        Self {
            dir,
            store,
            home,
            view,
        }
    }

    fn with_bytes(bytes: u64) -> Self {
        Self::with_limits(SpaceLimits {
            bytes: Some(bytes),
            files: None,
        })
    }

    /// Mounts the folder `name` as well.
    fn mount(mut self, name: &str, rights: Rights, limits: SpaceLimits) -> Self {
        let mount = Mount {
            name: name.to_owned(),
            space: self.store.folder(name, limits).expect("a folder"),
            rights,
        };
        self.view = View::new(&self.store, Arc::clone(&self.home), vec![mount]);
        self
    }

    /// Where something of the home is on the disk.
    fn on_disk(&self, inner: &str) -> PathBuf {
        self.data("homes/alice").join(inner)
    }

    fn data(&self, inner: &str) -> PathBuf {
        self.dir.path().join("data").join(inner)
    }

    fn staged(&self) -> usize {
        let entries = std::fs::read_dir(self.data("staging")).expect("staging");
        entries.count()
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<Committed, StorageError> {
        self.put_if(path, bytes, IfExists::Replace)
    }

    fn put_if(
        &self,
        path: &str,
        bytes: &[u8],
        if_exists: IfExists,
    ) -> Result<Committed, StorageError> {
        let options = UploadOptions {
            if_exists,
            ..sized(bytes.len())
        };
        let mut upload = self.view.upload(&at(path), options)?;
        upload.write(bytes)?;
        upload.commit(None)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, StorageError> {
        read(&self.view.open(&at(path), None)?)
    }

    /// As a server answers `hash`.
    fn digest(&self, path: &str, algorithm: Algorithm) -> Result<Digest, StorageError> {
        let file = self.view.open(&at(path), None)?;
        if let Some(kept) = file.kept_digest(algorithm) {
            return Ok(kept);
        }
        let mut verifier = file.verifier(algorithm);
        verifier.update(&read(&file)?);
        verifier.finish(&file)
    }

    fn remove(&self, path: &str) -> Result<u64, StorageError> {
        let removed = self.view.remove(&at(path), true, &never);
        removed.map(|removed| removed.entries)
    }

    fn mv(&self, from: &str, to: &str, if_exists: IfExists) -> Result<String, StorageError> {
        let path = self.view.rename(&at(from), &at(to), if_exists)?;
        Ok(path.to_string())
    }

    fn cp(&self, from: &str, to: &str, if_exists: IfExists) -> Result<String, StorageError> {
        let path = self.view.copy(&at(from), &at(to), if_exists, &never)?;
        Ok(path.to_string())
    }

    fn mkdir(&self, path: &str) {
        self.view
            .make_dir(&at(path), true, None)
            .expect("a directory");
    }

    /// The names in a directory, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let page = self.view.list(&at(path), None, usize::MAX, usize::MAX);
        let page = page.expect("a directory");
        page.entries.into_iter().map(|entry| entry.name).collect()
    }

    /// Bytes and entries in use around `path`.
    fn used(&self, path: &str) -> (u64, u64) {
        let usage = self.view.usage(&at(path)).expect("counted");
        (usage.used, usage.files)
    }

    /// Asserts that the ledger says what a fresh walk finds, and that nothing is left in staging.
    fn assert_exact(&self, path: &str, root: &str) {
        self.assert_counted(path, root);
        assert_eq!(self.staged(), 0);
    }

    /// Asserts that the ledger says what a fresh walk finds.
    fn assert_counted(&self, path: &str, root: &str) {
        let (mut bytes, mut entries) = (0, 0);
        for entry in walkdir::WalkDir::new(self.data(root)).min_depth(1) {
            let entry = entry.expect("readable");
            if entry.file_type().is_file() {
                bytes += entry.metadata().expect("there").len();
            }
            entries += 1;
        }
        assert_eq!(self.used(path), (bytes, entries));
    }
}

impl Store {
    /// The home of `user` with these limits.
    pub(crate) fn home(&self, user: &str, limits: SpaceLimits) -> Result<Arc<Space>, StorageError> {
        let home = self.open_home(user)?;
        home.ledger().limits = limits;
        Ok(home)
    }

    /// The shared folder `name` with these limits.
    pub(crate) fn folder(
        &self,
        name: &str,
        limits: SpaceLimits,
    ) -> Result<Arc<Space>, StorageError> {
        let folder = self.open_folder(name)?;
        folder.ledger().limits = limits;
        Ok(folder)
    }
}

impl View {
    /// Begins a new upload to `path`.
    pub(crate) fn upload(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
    ) -> Result<Upload, StorageError> {
        match self.begin(path, options, &"".into(), false)? {
            BegunUpload::Upload(upload) => Ok(*upload),
            BegunUpload::AlreadyCommitted(_) => unreachable!("it does not resume"),
        }
    }
}

/// A store of what is there, with what a server does behind its start done.
fn open_and_tidy(data: &std::path::Path) -> Store {
    let store = Store::open(data).expect("a store");
    for _ in 0..store.leftover_count() {
        assert!(!store.delete_leftover(), "more than one turn");
    }
    store
}

fn at(path: &str) -> VirtualPath {
    VirtualPath::parse(path).expect("a sound path")
}

fn never() -> bool {
    false
}

fn read(file: &StoredFile) -> Result<Vec<u8>, StorageError> {
    let length = usize::try_from(file.info().size).expect("small");
    let bytes = file.read_at(0, length)?;
    file.check_unchanged()?;
    Ok(bytes.to_vec())
}

fn sized(length: usize) -> UploadOptions {
    UploadOptions {
        size: Some(length as u64),
        ..unsized_upload()
    }
}

fn unsized_upload() -> UploadOptions {
    UploadOptions {
        size: None,
        if_exists: IfExists::Replace,
        modified: None,
        mode: None,
        parents: false,
        algorithm: Algorithm::Blake3,
    }
}

/// Asserts which variant an error is.
macro_rules! assert_fails {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern)),
        }
    };
}
use assert_fails;

#[test]
fn uploads_and_files_can_move_to_another_thread() {
    fn sent<T: Send + 'static>() {}
    sent::<View>();
    sent::<StoredFile>();
    sent::<Upload>();
    sent::<StorageError>();
}

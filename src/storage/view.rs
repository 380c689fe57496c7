//! Signatures only, for those who build against them; the bodies follow.
#![allow(missing_docs, clippy::pedantic, unused_variables, dead_code)]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Limits, Rights, StorageError, Usage, VirtualPath};
use crate::protocol::{Algorithm, Digest, Entry, IfExists, Kind};

fn later<T>() -> Result<T, StorageError> {
    Err(StorageError::Cancelled {
        path: VirtualPath::root(),
    })
}

#[derive(Debug, Clone)]
pub struct Store(Arc<()>);
impl Store {
    pub fn open(data: &Path) -> Result<Self, StorageError> {
        later()
    }
    pub fn home(&self, user: &str, limits: Limits) -> Result<Arc<Space>, StorageError> {
        later()
    }
    pub fn folder(&self, name: &str, limits: Limits) -> Result<Arc<Space>, StorageError> {
        later()
    }
}

#[derive(Debug)]
pub struct Space(());

#[derive(Debug, Clone)]
pub struct Mount {
    pub name: String,
    pub space: Arc<Space>,
    pub rights: Rights,
}

#[derive(Debug, Clone)]
pub struct View(Arc<()>);
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub cursor: Option<String>,
}
#[derive(Debug, Clone)]
pub struct Info {
    pub kind: Kind,
    pub size: u64,
    pub modified: Timestamp,
    pub version: Option<String>,
    pub digest: Option<Digest>,
}
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    pub size: Option<u64>,
    pub if_exists: IfExists,
    pub modified: Option<Timestamp>,
    pub parents: bool,
    pub algorithm: Algorithm,
}
#[derive(Debug)]
pub struct Committed {
    pub path: VirtualPath,
    pub size: u64,
    pub digest: Digest,
    pub version: String,
}

type E = StorageError;
impl View {
    pub fn new(store: &Store, home: Arc<Space>, folders: Vec<Mount>) -> Self {
        Self(Arc::new(()))
    }
    pub fn enter(&self, path: &VirtualPath) -> Result<(), E> {
        later()
    }
    pub fn list(
        &self,
        path: &VirtualPath,
        cursor: Option<&str>,
        limit: usize,
        budget: usize,
    ) -> Result<Page, E> {
        later()
    }
    pub fn stat(&self, path: &VirtualPath) -> Result<Info, E> {
        later()
    }
    pub fn make_dir(&self, path: &VirtualPath, parents: bool) -> Result<(), E> {
        later()
    }
    pub fn remove(
        &self,
        path: &VirtualPath,
        recursive: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<u64, E> {
        later()
    }
    pub fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
    ) -> Result<VirtualPath, E> {
        later()
    }
    pub fn copy(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        if_exists: IfExists,
        stop: &dyn Fn() -> bool,
    ) -> Result<VirtualPath, E> {
        later()
    }
    pub fn digest(
        &self,
        path: &VirtualPath,
        algorithm: Algorithm,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Digest, u64), E> {
        later()
    }
    pub fn open(&self, path: &VirtualPath, version: Option<&str>) -> Result<StoredFile, E> {
        later()
    }
    pub fn upload(&self, path: &VirtualPath, options: UploadOptions) -> Result<Upload, E> {
        later()
    }
    pub fn usage(&self, path: &VirtualPath) -> Result<Usage, E> {
        later()
    }
}

#[derive(Debug)]
pub struct StoredFile {
    info: Info,
}
impl StoredFile {
    pub fn info(&self) -> &Info {
        &self.info
    }
    pub fn kept_digest(&self, algorithm: Algorithm) -> Option<Digest> {
        None
    }
    pub fn keep_digest(&self, digest: Digest) {}
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, E> {
        later()
    }
    pub fn check_unchanged(&self) -> Result<(), E> {
        later()
    }
}

#[derive(Debug)]
pub struct Upload {
    path: VirtualPath,
    id: String,
}
impl Upload {
    pub fn path(&self) -> &VirtualPath {
        &self.path
    }
    pub fn id(&self) -> &str {
        &self.id
    }
    pub fn written(&self) -> u64 {
        0
    }
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), E> {
        later()
    }
    pub fn commit(self, expected: Option<Digest>) -> Result<Committed, E> {
        later()
    }
}

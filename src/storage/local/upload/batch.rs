//! Batches: small files, each in memory and whole, that come to the disk together.
//!
//! ```text
//! each: check, reserve, compare, stage  ─►  one sync for all  ─►  each: its name  ─►  one sync of
//! each directory  ─►  account, tell
//! ```
//!
//! What is wrong with one file concerns that file only; a sync that fails concerns all that waited
//! for it. None is in its place before all are on the disk.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::{Algorithm, Digest, Hasher};
use crate::storage::error::{ErrorContext, StorageError};
use crate::storage::local::fs::install;
use crate::storage::local::fs::install::{Before, Parent, Published, Source, land_in};
use crate::storage::local::fs::publish::take_back;
use crate::storage::local::fs::resolved_path::ResolvedPath;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::staging::{Staged, Staging};
use crate::storage::local::fs::tree::Reach;
use crate::storage::local::fs::unsynced::NewName;
use crate::storage::local::quota::{Reservation, SpaceCount};
use crate::storage::local::space::Names;
use crate::storage::local::upload::single::{Committed, Sealed, UploadOptions, Uploader, complete};
use crate::storage::local::view::View;
use crate::storage::path::VirtualPath;

/// A file that has come whole and is small enough to be in memory.
#[derive(Debug)]
pub struct SmallUpload {
    /// Where it is to go.
    pub path: VirtualPath,
    /// As for an [`Upload`](crate::storage::local::upload::single::Upload).
    pub options: UploadOptions,
    /// Its bytes, one piece after the other.
    pub content: Vec<Bytes>,
    /// The digest that the sender has computed.
    pub expected: Option<Digest>,
}

/// A small file that is in its place and survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallCommitted {
    /// The name that the upload had: random, hex.
    pub id: String,
    /// What has become of it.
    pub committed: Committed,
}

/// Descriptors that a batch holds at once. One more file may add the directories on its way.
pub const MAX_BATCH_DESCRIPTORS: usize = 256;

type Outcome = Result<SmallCommitted, StorageError>;

/// What has become of each, by its place in the order.
type Answers = Vec<(usize, Outcome)>;

impl View {
    /// Puts all the files in their places, in their order, and says of each in that order how it
    /// went. What a later one finds there is what an earlier one has put there.
    ///
    /// # Errors
    /// For each those of [`View::upload`], [`Upload::write`](crate::storage::local::upload::single::Upload::write) and
    /// [`Upload::commit`](crate::storage::local::upload::single::Upload::commit); none of it is left then.
    #[must_use]
    pub fn commit_all(&self, uploads: Vec<SmallUpload>, session: &Arc<str>) -> Vec<Outcome> {
        let mut answers = Answers::with_capacity(uploads.len());
        let mut waiting = Vec::with_capacity(uploads.len());
        let mut by = None;
        for (index, upload) in uploads.into_iter().enumerate() {
            let place = self.place(&upload.path);
            match place.and_then(|place| Ok((place, self.uploader(session, &upload.path)?))) {
                Ok((place, uploader)) => {
                    by = Some(uploader);
                    waiting.push(Item {
                        index,
                        place,
                        upload,
                    });
                }
                Err(error) => answers.push((index, Err(error))),
            }
        }
        while !waiting.is_empty() {
            let mut batch = Batch::default();
            // In a full space a file may fit once another has taken the place of an older one.
            let mut later = Vec::new();
            for item in waiting {
                let index = item.index;
                if batch.is_full() {
                    later.push(item);
                    continue;
                }
                match batch.add(item) {
                    Ok(None) => {}
                    Ok(Some(item)) => later.push(item),
                    Err(error) => answers.push((index, Err(error))),
                }
            }
            waiting = later;
            if let Some(by) = &by {
                batch.commit(by, &mut answers);
            }
        }
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

struct Item {
    index: usize,
    place: ResolvedPath,
    upload: SmallUpload,
}

/// Files that are staged, to be brought to the disk together.
#[derive(Default)]
struct Batch {
    staged: Vec<Ready>,
    /// Those that are synced each by itself.
    files: Vec<File>,
    /// Directories that will be open at once when the files get their names.
    dirs: usize,
    /// From before the first of them was written.
    witness: Option<OpenDir>,
    /// The directories that were looked into, to see at once what cannot be; nothing of one that
    /// is missing.
    looked_at: HashMap<(Arc<str>, VirtualPath), Option<OpenDir>>,
}

/// A file that is staged whole.
struct Ready {
    index: usize,
    place: ResolvedPath,
    options: UploadOptions,
    staged: Staged,
    sealed: Sealed,
    digest: Digest,
    reservation: Reservation,
}

/// A file that has its name.
struct Named {
    index: usize,
    place: ResolvedPath,
    options: UploadOptions,
    staged: Staged,
    sealed: Sealed,
    digest: Digest,
    landed: Published,
    /// What it has displaced, until that is gone.
    held: Reservation,
}

impl Batch {
    /// Checks and stages a file. Gives it back if there may be room for it once those that are
    /// staged have their names.
    fn add(&mut self, item: Item) -> Result<Option<Item>, StorageError> {
        let Item {
            index,
            place,
            upload,
        } = item;
        self.check(&place, &upload.options)?;
        let size: u64 = upload.content.iter().map(|piece| piece.len() as u64).sum();
        let declared = upload.options.size.unwrap_or(size);
        let staging = &place.space.staging;
        let mut reservation = Reservation::new(&place.space);
        match reservation.grow(SpaceCount::file(declared), &place.full) {
            Err(StorageError::QuotaExceeded { .. }) if !self.staged.is_empty() => {
                return Ok(Some(Item {
                    index,
                    place,
                    upload,
                }));
            }
            grown => grown.map_err(|error| place.conceal(error))?,
        }
        if declared != size {
            return Err(StorageError::SizeMismatch {
                path: place.full,
                declared,
                received: size,
            });
        }
        let digest = upload.digest(&place.full)?;
        if self.witness.is_none() {
            self.witness = Some(staging.witness().at("stage", &place.full)?);
        }
        let (staged, mut file) = staging.file().at("stage", &place.full)?;
        for piece in &upload.content {
            file.write_all(piece).at("write", &place.full)?;
        }
        reservation.written(size);
        let modified = upload.options.modified;
        let sealed = complete(&file, &place, modified, &digest).at("write", &place.full)?;
        // One sync of all covers those that are closed, too.
        if !staging.syncs_together(self.staged.len()) {
            self.files.push(file);
        }
        self.staged.push(Ready {
            index,
            options: upload.options,
            staged,
            sealed,
            digest,
            reservation,
            place,
        });
        Ok(None)
    }

    /// Whether it holds as many descriptors as a batch may.
    fn is_full(&self) -> bool {
        self.files.len() + self.looked_at.len() + self.dirs >= MAX_BATCH_DESCRIPTORS
    }

    /// Refuses at once what could not be committed as things are.
    fn check(&mut self, place: &ResolvedPath, options: &UploadOptions) -> Result<(), StorageError> {
        if place.is_root() {
            return Err(StorageError::is_a_directory(&place.full));
        }
        let (if_exists, parents) = (options.if_exists, options.parents);
        let Some(above) = place.inner.parent() else {
            return install::check(place, false, if_exists, parents);
        };
        place.require(|rights| rights.write)?;
        place.full.as_file()?;
        let depth = above.components().count();
        match self.looked_at.entry((Arc::clone(&place.space.key), above)) {
            Entry::Occupied(dir) if dir.get().is_none() && parents => Ok(()),
            Entry::Occupied(mut dir) => {
                let found = match dir.get_mut() {
                    Some(dir) => dir,
                    missing => missing.insert(place.open_parent()?.0),
                };
                install::check_in(found, place.name()?, place, false, if_exists)
            }
            Entry::Vacant(entry) => match place.open_parent() {
                Err(StorageError::NotFound { .. }) if parents => {
                    // All on the way to it may have to be made.
                    self.dirs += depth + 1;
                    entry.insert(None);
                    Ok(())
                }
                Err(error) => Err(error),
                Ok((dir, name)) => {
                    place.space.staging.check_mount(&dir, &place.full)?;
                    self.dirs += 1;
                    let found = entry.insert(Some(dir));
                    let found = found
                        .as_ref()
                        .ok_or_else(|| StorageError::denied(&place.full))?;
                    install::check_in(found, name, place, false, if_exists)
                }
            },
        }
    }

    /// Brings all to the disk and gives each its name.
    fn commit(self, by: &Uploader, answers: &mut Answers) {
        let (Some(first), Some(witness)) = (self.staged.first(), self.witness) else {
            return;
        };
        let staging = Arc::clone(&first.place.space.staging);
        if let Err(error) = staging.sync_files(&self.files, &witness) {
            for ready in self.staged {
                answers.push((ready.index, failed(&error, &ready.place.full)));
            }
            return;
        }
        drop(self.files);
        let named = name_all(self.staged, answers);
        let Err(error) = sync_dirs(&staging, &named, &witness) else {
            confirm_all(named, by, answers);
            return;
        };
        // One may have replaced another: each finds what it left.
        for named in named.into_iter().rev() {
            answers.push((named.index, failed(&error, &named.place.full)));
            named.take_back();
        }
    }
}

/// A sync has failed, and with it each file that waited for it.
fn failed(error: &std::io::Error, path: &VirtualPath) -> Outcome {
    let same = match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    };
    Err(same).at("sync", path)
}

/// Gives each its name, those of one space under one lock.
fn name_all(staged: Vec<Ready>, answers: &mut Answers) -> Vec<Named> {
    let mut all = Vec::with_capacity(staged.len());
    let mut rest = staged.into_iter().peekable();
    while let Some(next) = rest.peek() {
        let space = Arc::clone(&next.place.space);
        let locked = space.lock_names();
        let mut parents = HashMap::new();
        let is_there = |ready: &Ready| Arc::ptr_eq(&ready.place.space, &space);
        while let Some(ready) = rest.next_if(is_there) {
            let index = ready.index;
            match ready.name(&locked, &mut parents) {
                Ok(done) => all.push(done),
                Err(error) => answers.push((index, Err(error))),
            }
        }
    }
    all
}

/// Acknowledges those whose space is still the one of its name, and takes back the others. Each space
/// is looked up once.
fn confirm_all(named: Vec<Named>, by: &Uploader, answers: &mut Answers) {
    let mut attached: Option<Arc<str>> = None;
    let mut detached = Vec::new();
    for named in named {
        let key = &named.place.space.key;
        if attached.as_ref() != Some(key) {
            if let Err(error) = named.place.check_attached() {
                answers.push((named.index, Err(error)));
                detached.push(named);
                continue;
            }
            attached = Some(Arc::clone(key));
        }
        answers.push((named.index, Ok(named.last(by))));
    }
    // One may have replaced another: each finds what it left.
    for named in detached.into_iter().rev() {
        named.take_back();
    }
}

/// Makes the new names survive a power cut: each directory is asked once.
fn sync_dirs(staging: &Staging, named: &[Named], witness: &OpenDir) -> std::io::Result<()> {
    let mut dirs: Vec<_> = named.iter().flat_map(|named| &named.landed.dir).collect();
    dirs.sort_unstable_by_key(|dir| Arc::as_ptr(dir));
    dirs.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let unsynced = named.iter().flat_map(|named| &named.landed.unsynced);
    let mut unsynced: Vec<&Arc<NewName>> = unsynced.collect();
    unsynced.sort_unstable_by_key(|name| Arc::as_ptr(name));
    unsynced.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let synced = if dirs.is_empty() {
        Ok(())
    } else {
        staging.sync_dirs(&dirs, &unsynced, witness)
    };
    for named in named {
        named.place.space.unsynced.settle(&named.landed.unsynced);
    }
    synced
}

impl SmallUpload {
    fn digest(&self, path: &VirtualPath) -> Result<Digest, StorageError> {
        let own = self.digest_in(self.options.algorithm);
        let Some(expected) = self.expected else {
            return Ok(own);
        };
        let actual = if own.algorithm() == expected.algorithm() {
            own
        } else {
            self.digest_in(expected.algorithm())
        };
        if actual == expected {
            return Ok(own);
        }
        Err(StorageError::DigestMismatch {
            path: path.clone(),
            expected,
            actual,
        })
    }

    fn digest_in(&self, algorithm: Algorithm) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        for piece in &self.content {
            hasher.update(piece);
        }
        hasher.finish()
    }
}

impl Ready {
    fn name(
        self,
        names: &Names<'_>,
        parents: &mut HashMap<(VirtualPath, bool), Parent>,
    ) -> Result<Named, StorageError> {
        let Self {
            index,
            place,
            options,
            mut staged,
            sealed,
            digest,
            reservation,
        } = self;
        let above = place.inner.parent().unwrap_or_else(VirtualPath::root);
        let parent = match parents.entry((above, options.parents)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Parent::of(names, &place, options.parents)?),
        };
        let source = Source {
            dir: staged.dir(),
            name: staged.name(),
            is_dir: false,
            place: None,
            reach: Reach::default(),
        };
        let landed = land_in(names, parent, source, &place, options.if_exists)?;
        if landed.before != Before::Exchanged {
            staged.set_left();
        }
        let held = reservation.settle(names, landed.displaced);
        Ok(Named {
            index,
            place,
            options,
            staged,
            sealed,
            digest,
            landed,
            held,
        })
    }
}

impl Named {
    /// It lasts: notes that, and deletes what it has replaced.
    fn last(self, by: &Uploader) -> SmallCommitted {
        let id = self.staged.name().to_owned();
        let version = self.sealed.version(|| self.landed.meta());
        let committed = Committed {
            path: self.landed.path,
            size: self.sealed.meta.size,
            digest: self.digest,
            version,
        };
        // What is in staging now is deleted, and only then its room is given back.
        drop(self.staged);
        drop(self.held);
        self.landed.noted.tell();
        by.note(&self.place, self.options.if_exists, &committed);
        SmallCommitted { id, committed }
    }

    fn take_back(mut self) {
        take_back(
            &mut self.staged,
            &self.sealed.meta,
            &self.landed,
            &self.place,
        );
    }
}

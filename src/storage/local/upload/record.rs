//! The record of an upload, from which it is resumed after the server was killed.
//!
//! ```text
//! <upload>         the bytes
//! <upload>.record  {"format":1,"owner":{…},"space":{…},"inner":"/a","full":"/a","size":9,"data":{…}}
//!                  {"offset":4194304,"at":"2026-03-01T12:00:00Z"}
//!                  {"offset":8388608,"at":"2026-03-01T12:00:01Z"}
//! ```
//!
//! The first line is the manifest; each further line says how many bytes were synced when it was added.
//! The last complete line counts, since a kill or a power cut may leave a torn one after it. The
//! manifest identifies the file with the bytes by its id, since a replaced file can have the staged name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::storage::local::fs::metadata::FileId;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::space::SpaceId;
use crate::storage::path::VirtualPath;

/// The suffix of a record's name, after the id of its upload.
const SUFFIX: &str = ".record";

/// The suffix of a record that is being written; no complete record ends like this.
const NEW_SUFFIX: &str = ".record.new";

const FORMAT: u32 = 1;

/// A longer file is no record.
const MAX_RECORD_BYTES: u64 = 128 * 1024;

/// Lines after which the record is rewritten with its last line only.
const MAX_RECORD_LINES: u32 = 512;

/// The first line of a record: the upload and its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadManifest {
    format: u32,
    /// The home of the user.
    pub(crate) owner: SpaceId,
    /// The space of the destination.
    pub(crate) space: SpaceId,
    inner: String,
    full: String,
    pub(crate) size: Option<u64>,
    /// The id of the file with the bytes.
    pub(crate) data: FileId,
}

/// A further line of a record: how many bytes of the upload are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SyncedOffset {
    /// Bytes that are synced.
    pub(crate) offset: u64,
    /// When they were synced.
    pub(crate) at: Timestamp,
}

impl UploadManifest {
    pub(crate) fn new(
        owner: &SpaceId,
        space: &SpaceId,
        inner: &VirtualPath,
        full: &VirtualPath,
        size: Option<u64>,
        data: FileId,
    ) -> Self {
        Self {
            format: FORMAT,
            owner: owner.clone(),
            space: space.clone(),
            inner: inner.to_string(),
            full: full.to_string(),
            size,
            data,
        }
    }

    /// The manifest and the last synced offset, if the bytes are a record.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, SyncedOffset)> {
        // A line without a line break is torn.
        let (complete, _) = bytes.split_at(bytes.iter().rposition(|byte| *byte == b'\n')?);
        let mut lines = complete.split(|byte| *byte == b'\n');
        let record: Self = serde_json::from_slice(lines.next()?).ok()?;
        let progress: SyncedOffset = lines
            .rev()
            .find_map(|line| serde_json::from_slice(line).ok())?;
        let within = record.size.is_none_or(|size| progress.offset <= size);
        (record.format == FORMAT && within && record.paths().is_some())
            .then_some((record, progress))
    }

    /// The path within the space, and the path that the user saw.
    pub(crate) fn paths(&self) -> Option<(VirtualPath, VirtualPath)> {
        let inner = VirtualPath::parse(&self.inner).ok()?;
        let full = VirtualPath::parse(&self.full).ok()?;
        inner.name().is_some().then_some((inner, full))
    }

    fn with(&self, progress: SyncedOffset) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        text.extend(progress.line()?);
        Ok(text)
    }
}

impl SyncedOffset {
    fn line(self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The id of the upload whose record has this name.
pub(crate) fn id_of_record(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

/// The id of the upload whose unfinished record has this name.
pub(crate) fn id_of_unfinished_record(name: &str) -> Option<&str> {
    name.strip_suffix(NEW_SUFFIX)
}

/// Reads the record of upload `id`.
pub(crate) fn read(staging: &Staging, id: &str) -> Option<(UploadManifest, SyncedOffset)> {
    let (file, _) = staging.dir.open_file(format!("{id}{SUFFIX}")).ok()?;
    let mut bytes = Vec::new();
    let length = file
        .take(MAX_RECORD_BYTES + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    if length as u64 > MAX_RECORD_BYTES {
        return None;
    }
    UploadManifest::parse(&bytes)
}

/// The file with the record of an upload that receives data.
#[derive(Debug)]
pub(crate) struct RecordFile {
    staging: Arc<Staging>,
    id: String,
    /// Locked while the record is written, so that none is created after its removal.
    state: Mutex<RecordFileState>,
}

#[derive(Debug)]
enum RecordFileState {
    /// No record exists.
    Absent,
    /// The record of an earlier attempt exists; its end may be torn.
    Resumed,
    /// The record exists and gets further lines.
    Open { file: File, lines: u32 },
    /// The record is removed and is not created again.
    Removed,
}

impl RecordFile {
    /// For a new upload. No file is created before the first checkpoint.
    pub(crate) fn absent(staging: &Arc<Staging>, id: &str) -> Self {
        Self::new(staging, id, RecordFileState::Absent)
    }

    /// For an upload that is resumed.
    pub(crate) fn resumed(staging: &Arc<Staging>, id: &str) -> Self {
        Self::new(staging, id, RecordFileState::Resumed)
    }

    fn new(staging: &Arc<Staging>, id: &str, state: RecordFileState) -> Self {
        Self {
            staging: Arc::clone(staging),
            id: id.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// Records that `offset` bytes are synced, and syncs the record.
    pub(crate) fn write(&self, record: &UploadManifest, offset: u64) -> io::Result<()> {
        let at = Timestamp::now();
        let progress = SyncedOffset { offset, at };
        let mut state = self.lock();
        let text = match &mut *state {
            RecordFileState::Removed => return Ok(()),
            RecordFileState::Open { file, lines } if *lines < MAX_RECORD_LINES => {
                file.write_all(&progress.line()?)?;
                *lines += 1;
                return self.staging.record_sync(file.sync_data());
            }
            RecordFileState::Open { .. } | RecordFileState::Resumed | RecordFileState::Absent => {
                record.with(progress)?
            }
        };
        let file = self.replace(&text)?;
        *state = RecordFileState::Open { file, lines: 1 };
        // This also syncs the name of the file with the bytes.
        self.staging.record_sync(self.staging.dir.sync())
    }

    /// Replaces the record atomically.
    fn replace(&self, text: &[u8]) -> io::Result<File> {
        let dir = &self.staging.dir;
        let new = format!("{}{NEW_SUFFIX}", self.id);
        let mut file = match dir.create_file(&*new) {
            // An earlier server was killed while it wrote this, or could not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                dir.remove_file(&*new)?;
                dir.create_file(&*new)?
            }
            created => created?,
        };
        let written = file.write_all(text);
        let synced = written.and_then(|()| self.staging.record_sync(file.sync_all()));
        let name = format!("{}{SUFFIX}", self.id);
        match synced.and_then(|()| dir.rename_over(&new, dir, &name)) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = dir.remove_file(&*new);
                Err(error)
            }
        }
    }

    /// Removes the record; none is created after that.
    pub(crate) fn remove(&self) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, RecordFileState::Removed) {
            RecordFileState::Absent | RecordFileState::Removed => {}
            RecordFileState::Resumed | RecordFileState::Open { .. } => {
                remove(&self.staging, &self.id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecordFileState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the record of upload `id`.
pub(crate) fn remove(staging: &Staging, id: &str) {
    remove_file(staging, &format!("{id}{SUFFIX}"));
}

/// Removes the unfinished record of upload `id` that a killed server may have left.
pub(crate) fn remove_unfinished(staging: &Staging, id: &str) {
    remove_file(staging, &format!("{id}{NEW_SUFFIX}"));
}

fn remove_file(staging: &Staging, name: &str) {
    match staging.dir.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(
                name: "record_not_removed",
                %error,
                "cannot remove the record of an upload"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::local::space::Area;

    fn record() -> UploadManifest {
        let mark: FileId = serde_json::from_str(r#"{"inode":7,"born":[1,2]}"#).expect("a file id");
        let space = |area, name: &str| SpaceId {
            area,
            name: name.to_owned(),
            root_id: mark,
        };
        UploadManifest::new(
            &space(Area::Homes, "alice"),
            &space(Area::Folders, "team"),
            &VirtualPath::parse("/a \"b\"").expect("a path"),
            &VirtualPath::parse("/team/a \"b\"").expect("a path"),
            Some(1000),
            mark,
        )
    }

    fn offset_record(offset: u64) -> SyncedOffset {
        SyncedOffset {
            offset,
            at: "2026-03-01T12:00:00Z".parse().expect("a time"),
        }
    }

    fn text(offsets: &[u64]) -> Vec<u8> {
        let mut text = record().with(offset_record(offsets[0])).expect("JSON");
        for offset in &offsets[1..] {
            text.extend(offset_record(*offset).line().expect("JSON"));
        }
        text
    }

    #[test]
    fn the_last_line_counts() {
        let parsed = UploadManifest::parse(&text(&[10, 20, 30]));
        assert_eq!(parsed, Some((record(), offset_record(30))));
    }

    #[test]
    fn a_torn_end_is_ignored_wherever_it_is_torn() {
        let (short, long) = (text(&[10, 20]), text(&[10, 20, 30]));
        for length in short.len()..long.len() {
            let parsed = UploadManifest::parse(&long[..length]);
            assert_eq!(
                parsed,
                Some((record(), offset_record(20))),
                "{length} bytes"
            );
        }
        let first_line = text(&[10]).len();
        for length in 0..first_line {
            assert_eq!(
                UploadManifest::parse(&short[..length]),
                None,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn an_end_that_the_disk_filled_with_other_bytes_is_ignored() {
        for end in [
            &b"\0\0\0\0"[..],
            b"\0\0\0\n",
            b"{\"offset\":99}\n",
            b"\xff\n\n",
        ] {
            let bytes = [&text(&[10, 20]), end].concat();
            assert_eq!(
                UploadManifest::parse(&bytes),
                Some((record(), offset_record(20)))
            );
        }
    }

    #[test]
    fn a_record_that_contradicts_itself_is_no_record() {
        let good = String::from_utf8(text(&[10])).expect("text");
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"offset\":10", "\"offset\":1001"),
            ("\"offset\":10", "\"offset\":-1"),
            ("\"inner\":\"/a \\\"b\\\"\"", "\"inner\":\"/\""),
            ("\"inner\":\"/a \\\"b\\\"\"", "\"inner\":\"a\\u0000\""),
            ("homes", "staging"),
            ("{\"format\"", "[\"format\""),
            ("\"size\":1000", "\"size\":1000,\"more\":1"),
        ] {
            assert!(good.contains(from), "{from}");
            assert_eq!(
                UploadManifest::parse(good.replace(from, to).as_bytes()),
                None,
                "{to}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_record_and_never_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(UploadManifest::parse(&bytes), None);
            let mut tail = text(&[10]);
            tail.extend(&bytes);
            let parsed = UploadManifest::parse(&tail);
            prop_assert_eq!(parsed.map(|(record, _)| record), Some(record()));
        }

        #[test]
        fn one_wrong_byte_never_makes_the_offset_larger_than_the_size(
            position in 0..200_usize,
            byte: u8,
        ) {
            let mut bytes = text(&[10, 999]);
            let position = position % bytes.len();
            bytes[position] = byte;
            if let Some((record, progress)) = UploadManifest::parse(&bytes) {
                prop_assert!(record.size.is_none_or(|size| progress.offset <= size));
            }
        }
    }
}

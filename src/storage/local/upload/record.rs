//! The record of an upload: what lets it be gone on with after the server was killed.
//!
//! ```text
//! <upload>         the bytes
//! <upload>.record  {"format":1,"owner":{…},"space":{…},"inner":"/a","full":"/a","size":9,"data":{…}}
//!                  {"offset":4194304,"at":"2026-03-01T12:00:00Z"}
//!                  {"offset":8388608,"at":"2026-03-01T12:00:01Z"}
//! ```
//!
//! The first line says what it is, each further one how many bytes were on the disk when it was
//! added. The last line that is whole counts: a kill or a power cut may leave a torn one behind it.
//! The bytes are known by their birthmark, since a replaced file can have the staged name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::storage::local::fs::metadata::FileId;
use crate::storage::local::fs::staging::Staging;
use crate::storage::local::space::SpaceId;
use crate::storage::path::VirtualPath;

/// What a record's name has behind that of its upload.
const SUFFIX: &str = ".record";

/// What a record has that is not in its place yet; no record ends like this.
const NEW_SUFFIX: &str = ".record.new";

const FORMAT: u32 = 1;

/// A longer record is none.
const MAX_RECORD: u64 = 128 * 1024;

/// Lines after which the record is written anew, with its last one only.
const MAX_LINES: u32 = 512;

/// What an upload is and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// The home of who uploads.
    pub(crate) owner: SpaceId,
    /// Where it goes.
    pub(crate) space: SpaceId,
    inner: String,
    full: String,
    pub(crate) size: Option<u64>,
    /// Of the file with the bytes.
    pub(crate) data: FileId,
}

/// How far an upload is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Bytes that are on the disk.
    pub(crate) offset: u64,
    /// When they were.
    pub(crate) at: Timestamp,
}

impl Record {
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

    /// The record and its last progress, if the bytes are a record.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, Progress)> {
        // What has no line break at its end is torn, or not even begun.
        let (whole, _) = bytes.split_at(bytes.iter().rposition(|byte| *byte == b'\n')?);
        let mut lines = whole.split(|byte| *byte == b'\n');
        let record: Self = serde_json::from_slice(lines.next()?).ok()?;
        let progress: Progress = lines
            .rev()
            .find_map(|line| serde_json::from_slice(line).ok())?;
        let within = record.size.is_none_or(|size| progress.offset <= size);
        (record.format == FORMAT && within && record.paths().is_some())
            .then_some((record, progress))
    }

    /// The path within the space, and the one that the user saw.
    pub(crate) fn paths(&self) -> Option<(VirtualPath, VirtualPath)> {
        let inner = VirtualPath::parse(&self.inner).ok()?;
        let full = VirtualPath::parse(&self.full).ok()?;
        inner.name().is_some().then_some((inner, full))
    }

    fn with(&self, progress: Progress) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        text.extend(progress.line()?);
        Ok(text)
    }
}

impl Progress {
    fn line(self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(&self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// The upload whose record has this name.
pub(crate) fn upload_of(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

/// The upload whose record with this name is not in its place yet.
pub(crate) fn upload_of_new(name: &str) -> Option<&str> {
    name.strip_suffix(NEW_SUFFIX)
}

/// Reads the record of upload `id`.
pub(crate) fn read(staging: &Staging, id: &str) -> Option<(Record, Progress)> {
    let (file, _) = staging.dir.open_file(format!("{id}{SUFFIX}")).ok()?;
    let mut bytes = Vec::new();
    let length = file.take(MAX_RECORD + 1).read_to_end(&mut bytes).ok()?;
    if length as u64 > MAX_RECORD {
        return None;
    }
    Record::parse(&bytes)
}

/// The record of an upload, being kept.
#[derive(Debug)]
pub(crate) struct Recording {
    staging: Arc<Staging>,
    id: String,
    /// Locked while it is written, so that none comes to be once it is removed.
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// There is none.
    Absent,
    /// There is one from before, whose end may be torn.
    Old,
    /// There is one, to which lines are added.
    Open { file: File, lines: u32 },
    /// There will never be one again.
    Removed,
}

impl Recording {
    /// Of an upload that has none yet: it costs nothing until there is something to note.
    pub(crate) fn absent(staging: &Arc<Staging>, id: &str) -> Self {
        Self::of(staging, id, State::Absent)
    }

    /// Of an upload that is gone on with.
    pub(crate) fn old(staging: &Arc<Staging>, id: &str) -> Self {
        Self::of(staging, id, State::Old)
    }

    fn of(staging: &Arc<Staging>, id: &str, state: State) -> Self {
        Self {
            staging: Arc::clone(staging),
            id: id.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// Notes that so many bytes are on the disk, so that it survives a power cut.
    pub(crate) fn note(&self, record: &Record, offset: u64) -> io::Result<()> {
        let at = Timestamp::now();
        let progress = Progress { offset, at };
        let mut state = self.lock();
        let anew = match &mut *state {
            State::Removed => return Ok(()),
            State::Open { file, lines } if *lines < MAX_LINES => {
                file.write_all(&progress.line()?)?;
                *lines += 1;
                return self.staging.synced(file.sync_data());
            }
            State::Open { .. } | State::Old | State::Absent => record.with(progress)?,
        };
        let file = self.replace(&anew)?;
        *state = State::Open { file, lines: 1 };
        // With this the name of the data lasts as well.
        self.staging.synced(self.staging.dir.sync())
    }

    /// Writes the record anew, in the place of the old one at once.
    fn replace(&self, text: &[u8]) -> io::Result<File> {
        let dir = &self.staging.dir;
        let new = format!("{}{NEW_SUFFIX}", self.id);
        let mut file = match dir.create_file(&*new) {
            // A server was killed while it wrote this, or could not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                dir.remove_file(&*new)?;
                dir.create_file(&*new)?
            }
            created => created?,
        };
        let written = file.write_all(text);
        let synced = written.and_then(|()| self.staging.synced(file.sync_all()));
        let name = format!("{}{SUFFIX}", self.id);
        match synced.and_then(|()| dir.rename_over(&new, dir, &name)) {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = dir.remove_file(&*new);
                Err(error)
            }
        }
    }

    /// Removes it for good.
    pub(crate) fn remove(&self) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Removed) {
            State::Absent | State::Removed => {}
            State::Old | State::Open { .. } => remove(&self.staging, &self.id),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the record of upload `id`.
pub(crate) fn remove(staging: &Staging, id: &str) {
    remove_file(staging, &format!("{id}{SUFFIX}"));
}

/// Removes what a killed server may have left of a record that was not in its place yet.
pub(crate) fn remove_new(staging: &Staging, id: &str) {
    remove_file(staging, &format!("{id}{NEW_SUFFIX}"));
}

fn remove_file(staging: &Staging, name: &str) {
    match staging.dir.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(
                name: "record_not_removed",
                %error,
                "the record of an upload could not be removed"
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

    fn record() -> Record {
        let mark: FileId =
            serde_json::from_str(r#"{"inode":7,"born":[1,2]}"#).expect("a birthmark");
        let space = |area, name: &str| SpaceId {
            area,
            name: name.to_owned(),
            mark,
        };
        Record::new(
            &space(Area::Homes, "alice"),
            &space(Area::Folders, "team"),
            &VirtualPath::parse("/a \"b\"").expect("a path"),
            &VirtualPath::parse("/team/a \"b\"").expect("a path"),
            Some(1000),
            mark,
        )
    }

    fn at(offset: u64) -> Progress {
        Progress {
            offset,
            at: "2026-03-01T12:00:00Z".parse().expect("a time"),
        }
    }

    fn text(offsets: &[u64]) -> Vec<u8> {
        let mut text = record().with(at(offsets[0])).expect("JSON");
        for offset in &offsets[1..] {
            text.extend(at(*offset).line().expect("JSON"));
        }
        text
    }

    #[test]
    fn the_last_line_counts() {
        let parsed = Record::parse(&text(&[10, 20, 30]));
        assert_eq!(parsed, Some((record(), at(30))));
    }

    #[test]
    fn a_torn_end_is_ignored_wherever_it_is_torn() {
        let (short, long) = (text(&[10, 20]), text(&[10, 20, 30]));
        for length in short.len()..long.len() {
            let parsed = Record::parse(&long[..length]);
            assert_eq!(parsed, Some((record(), at(20))), "{length} bytes");
        }
        let whole_first = text(&[10]).len();
        for length in 0..whole_first {
            assert_eq!(Record::parse(&short[..length]), None, "{length} bytes");
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
            assert_eq!(Record::parse(&bytes), Some((record(), at(20))));
        }
    }

    #[test]
    fn what_can_not_be_true_is_no_record() {
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
                Record::parse(good.replace(from, to).as_bytes()),
                None,
                "{to}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_record_and_never_a_panic(bytes: Vec<u8>) {
            prop_assert_eq!(Record::parse(&bytes), None);
            let mut tail = text(&[10]);
            tail.extend(&bytes);
            let parsed = Record::parse(&tail);
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
            if let Some((record, progress)) = Record::parse(&bytes) {
                prop_assert!(record.size.is_none_or(|size| progress.offset <= size));
            }
        }
    }
}

//! Deltas: how a file is cut into content chunks, and the requests and replies that use them.
//!
//! The cut points depend on the content only, so an insertion changes the chunks around it and no
//! others. Both ends cut with the same parameters, which [`CUTTING`] names.

use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::protocol::MAX_NUMBER;
use crate::protocol::number::required_number;

/// The name of the parameters on the wire: the gear tables and masks of `FastCDC` (2020) without a seed,
/// normalisation level 1, the least, average and largest length of a content chunk, and the hash of one.
pub const CUTTING: &str = "fastcdc-2020/4K/16K/64K/xxh3-64";

/// The least length of a content chunk in bytes, but for the last one of a file.
pub const MIN_CONTENT_CHUNK_BYTES: usize = 4 * 1024;

/// The average length that the masks aim at.
const AVERAGE_CONTENT_CHUNK_BYTES: usize = 16 * 1024;

/// The largest length of a content chunk in bytes.
pub const MAX_CONTENT_CHUNK_BYTES: usize = 64 * 1024;

/// The most bytes of one `copy`: a session reads on while few of them wait, so each must be short work.
pub const MAX_COPY_BYTES: u64 = 16 * 1024 * 1024;

/// The most ranges of one `get`.
pub const MAX_RANGES: usize = 1000;

/// Bytes of a content chunk's hash. Two different chunks of a file with a million of them have the same
/// hash with a probability of 2^-25; then the digest of the file differs,
/// and it is transferred whole. The same goes for chunks that were made to have the same hash.
const HASH_BYTES: usize = 8;

/// A part of a file, as its content cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentChunk {
    /// Its bytes.
    pub length: u32,
    /// XXH3 of 64 bits of its bytes, with seed 0.
    pub hash: [u8; HASH_BYTES],
}

impl ContentChunk {
    /// Bytes of a record in the data of `chunks`.
    pub const RECORD_BYTES: usize = size_of::<u16>() + HASH_BYTES;

    fn of(bytes: &[u8]) -> Self {
        Self {
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            hash: XxHash3_64::oneshot(bytes).to_be_bytes(),
        }
    }

    /// Appends its record: the length minus 1 as u16, big-endian, then the hash.
    pub fn put_record(&self, buffer: &mut Vec<u8>) {
        let length = u16::try_from(self.length.saturating_sub(1)).unwrap_or(u16::MAX);
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(&self.hash);
    }

    /// Reads a record.
    #[must_use]
    pub fn from_record(record: &[u8; Self::RECORD_BYTES]) -> Self {
        let [high, low, hash @ ..] = *record;
        Self {
            length: u32::from(u16::from_be_bytes([high, low])) + 1,
            hash,
        }
    }
}

/// Cuts a file whose bytes come piece by piece. It holds less than one content chunk between pieces.
#[derive(Debug, Clone, Default)]
pub struct ContentChunker {
    /// The bytes after the last cut.
    uncut: Vec<u8>,
}

impl ContentChunker {
    /// Takes in the next bytes, and passes the chunks that they complete to `found`, each with its bytes.
    pub fn update(&mut self, bytes: &[u8], mut found: impl FnMut(ContentChunk, &[u8])) {
        self.uncut.extend_from_slice(bytes);
        let cutter = cutter(&self.uncut);
        let mut start = 0;
        // A cut may depend on as many bytes as the largest chunk has.
        while self.uncut.len() - start >= MAX_CONTENT_CHUNK_BYTES {
            let (_, end) = cutter.cut(start, self.uncut.len() - start);
            let chunk = &self.uncut[start..end];
            found(ContentChunk::of(chunk), chunk);
            start = end;
        }
        self.uncut.drain(..start);
    }

    /// Passes the chunks of the remaining bytes, which are the end of the file, to `found`.
    pub fn finish(self, mut found: impl FnMut(ContentChunk, &[u8])) {
        for cut in cutter(&self.uncut) {
            let chunk = &self.uncut[cut.offset..cut.offset + cut.length];
            found(ContentChunk::of(chunk), chunk);
        }
    }
}

fn cutter(bytes: &[u8]) -> FastCDC<'_> {
    FastCDC::with_level(
        bytes,
        MIN_CONTENT_CHUNK_BYTES,
        AVERAGE_CONTENT_CHUNK_BYTES,
        MAX_CONTENT_CHUNK_BYTES,
        Normalization::Level1,
    )
}

/// `chunks`: receive the list of the content chunks of a file as data frames.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunks {
    /// The file.
    pub path: String,
    /// Fail with `changed` unless the file is still of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Begins the data of a `chunks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksBegin {
    /// Bytes of the file.
    pub size: u64,
    /// The version of the file.
    pub version: String,
    /// The parameters of the cuts, [`CUTTING`].
    pub cutting: String,
}

/// Ends a `chunks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksReply {
    /// The number of content chunks.
    pub count: u64,
    /// Bytes of the file, which is the sum of the lengths.
    pub size: u64,
    /// The version of the file.
    pub version: String,
}

/// A part of a file that a `get` asks for: `[offset, length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "[u64; 2]", try_from = "Vec<u64>")]
pub struct RequestedRange {
    offset: u64,
    length: u64,
}

impl RequestedRange {
    /// The range that begins at `offset`; `None` if it is empty or not within the numbers of the wire.
    #[must_use]
    pub fn new(offset: u64, length: u64) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (length > 0 && end <= MAX_NUMBER).then_some(Self { offset, length })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_range(self) -> Range<u64> {
        self.offset..self.offset + self.length
    }
}

impl From<RequestedRange> for [u64; 2] {
    fn from(range: RequestedRange) -> Self {
        [range.offset, range.length]
    }
}

/// From a list, because a longer one would be taken for bad JSON instead of a bad field.
impl TryFrom<Vec<u64>> for RequestedRange {
    type Error = &'static str;

    fn try_from(numbers: Vec<u64>) -> Result<Self, Self::Error> {
        let [offset, length] = *numbers.as_slice() else {
            return Err("a range is [offset, length]");
        };
        Self::new(offset, length).ok_or("a range is empty, or a number of it is out of range")
    }
}

/// `copy`: the next bytes of the put with this id are a part of its base.
///
/// It has no reply of its own: the put's final reply answers both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRange {
    /// The first byte of the part.
    #[serde(deserialize_with = "required_number")]
    pub offset: u64,
    /// Bytes of the part, 1 to [`MAX_COPY_BYTES`].
    #[serde(deserialize_with = "required_number")]
    pub length: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The pseudo-random MiB of the vectors that `docs/PROTOCOL.md` publishes.
    fn published_input() -> Vec<u8> {
        let mut state: u32 = 1;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(1024 * 1024).collect()
    }

    fn cut(pieces: &[&[u8]]) -> Vec<ContentChunk> {
        let (mut chunker, mut chunks) = (ContentChunker::default(), Vec::new());
        for piece in pieces {
            chunker.update(piece, |chunk, _| chunks.push(chunk));
        }
        chunker.finish(|chunk, _| chunks.push(chunk));
        chunks
    }

    #[test]
    fn the_published_vectors_are_met() {
        let chunks = cut(&[&published_input()]);
        let table: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                let hash = data_encoding::HEXLOWER.encode(&chunk.hash);
                format!("    {:>5} {hash}", chunk.length)
            })
            .collect();
        let document = include_str!("../../docs/PROTOCOL.md");
        let shown = table.join("\n");
        assert!(document.contains(&shown), "the document needs:\n{shown}");
    }

    #[test]
    fn a_record_is_a_big_endian_length_and_a_hash() {
        for (length, first) in [(0x1234, *b"\x12\x33"), (1, [0; 2]), (65_536, [255; 2])] {
            let hash = *b"01234567";
            let chunk = ContentChunk { length, hash };
            let mut record = Vec::new();
            chunk.put_record(&mut record);
            assert_eq!(record, [&first[..], &hash].concat());
            let record: [u8; 10] = record.try_into().expect("10 bytes");
            assert_eq!(ContentChunk::from_record(&record), chunk);
        }
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_only() {
        let before = published_input();
        let after = [&before[..300_000], b"inserted", &before[300_000..]].concat();
        let (before, after) = (cut(&[&before]), cut(&[&after]));
        let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!((1..=3).contains(&new), "{new} of {} are new", after.len());
    }

    #[test]
    fn an_empty_file_has_no_chunk() {
        assert_eq!(cut(&[]), []);
        assert_eq!(cut(&[b""]), []);
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_depend_on_the_pieces(
            seed: u8,
            length in 0_usize..400_000,
            step in 1_usize..200_000,
        ) {
            let mut bytes = published_input();
            bytes.truncate(length);
            bytes.insert(0, seed);
            let whole = cut(&[&bytes]);
            let pieces: Vec<_> = bytes.chunks(step).collect();
            prop_assert_eq!(&cut(&pieces), &whole);
            let sum: usize = whole.iter().map(|chunk| chunk.length as usize).sum();
            prop_assert_eq!(sum, bytes.len());
            let (_, full) = whole.split_last().expect("not empty");
            for chunk in full {
                prop_assert!(chunk.length as usize >= MIN_CONTENT_CHUNK_BYTES);
                prop_assert!(chunk.length as usize <= MAX_CONTENT_CHUNK_BYTES);
            }
        }
    }
}

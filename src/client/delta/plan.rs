//! How a new version of a file is put together from a local old one and the parts that it does not have.

use std::collections::VecDeque;
use std::ops::Range;

use crate::client::delta::chunk_list::ChunkIndex;
use crate::protocol::{ContentChunk, MAX_RANGES, RequestedRange};

/// Local bytes that are copied at once, and between two ranges of one request: the server must not wait for
/// long until its data is read.
const MAX_LOCAL_BYTES: u64 = 16 * 1024 * 1024;

/// A part of the new file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AssemblyStep {
    /// A part of the local old version.
    Local(Range<u64>),
    /// A part of the file on the server.
    Remote(Range<u64>),
}

impl AssemblyStep {
    fn range_mut(&mut self) -> &mut Range<u64> {
        match self {
            Self::Local(range) | Self::Remote(range) => range,
        }
    }
}

/// The steps for the chunks of the new version; adjacent parts are one step.
pub(super) fn plan_steps(chunks: &[ContentChunk], index: &ChunkIndex) -> VecDeque<AssemblyStep> {
    let (mut steps, mut position) = (VecDeque::new(), 0);
    for chunk in chunks {
        let length = u64::from(chunk.length);
        let step = match index.get(chunk) {
            Some(start) => AssemblyStep::Local(*start..start + length),
            None => AssemblyStep::Remote(position..position + length),
        };
        position += length;
        match (steps.back_mut(), &step) {
            (Some(AssemblyStep::Local(last)), AssemblyStep::Local(next))
                if last.end == next.start && next.end - last.start <= MAX_LOCAL_BYTES =>
            {
                last.end = next.end;
            }
            (Some(AssemblyStep::Remote(last)), AssemblyStep::Remote(next)) => last.end = next.end,
            _ => steps.push_back(step),
        }
    }
    steps
}

/// Removes the steps of the first bytes of the new file.
pub(super) fn skip_bytes(steps: &mut VecDeque<AssemblyStep>, mut bytes: u64) {
    while bytes > 0
        && let Some(first) = steps.front_mut()
    {
        let range = first.range_mut();
        let skipped = bytes.min(range.end - range.start);
        range.start += skipped;
        bytes -= skipped;
        if range.is_empty() {
            steps.pop_front();
        }
    }
}

/// The ranges that the next request asks for: those of the first steps.
pub(super) fn next_ranges<'a>(
    steps: impl IntoIterator<Item = &'a AssemblyStep>,
) -> Vec<RequestedRange> {
    let (mut ranges, mut local_bytes) = (Vec::new(), 0);
    for step in steps {
        match step {
            AssemblyStep::Remote(range) => {
                ranges.extend(RequestedRange::new(range.start, range.end - range.start));
            }
            AssemblyStep::Local(range) => local_bytes += range.end - range.start,
        }
        if ranges.len() == MAX_RANGES || local_bytes > MAX_LOCAL_BYTES {
            break;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::delta::chunk_list::add_chunk;

    fn chunk(name: u8) -> ContentChunk {
        ContentChunk {
            length: 10,
            hash: [name; 8],
        }
    }

    fn planned() -> VecDeque<AssemblyStep> {
        let (mut index, mut position) = (ChunkIndex::new(), 0);
        for name in [1, 2, 3] {
            add_chunk(&mut index, &mut position, chunk(name));
        }
        plan_steps(&[8, 9, 1, 2, 1, 7].map(chunk), &index)
    }

    #[test]
    fn adjacent_parts_are_one_step_and_each_missing_part_one_range() {
        let steps = planned();
        let expected = [
            AssemblyStep::Remote(0..20),
            AssemblyStep::Local(0..20),
            AssemblyStep::Local(0..10),
            AssemblyStep::Remote(50..60),
        ];
        assert_eq!(steps, expected);
        let ranges = next_ranges(&steps).into_iter();
        let ranges: Vec<_> = ranges.map(RequestedRange::to_range).collect();
        assert_eq!(ranges, [0..20, 50..60]);
    }

    #[test]
    fn the_bytes_that_are_there_need_no_step() {
        for (bytes, first, count) in [
            (0, AssemblyStep::Remote(0..20), 4),
            (19, AssemblyStep::Remote(19..20), 4),
            (20, AssemblyStep::Local(0..20), 3),
            (33, AssemblyStep::Local(13..20), 3),
            (43, AssemblyStep::Local(3..10), 2),
            (55, AssemblyStep::Remote(55..60), 1),
        ] {
            let mut steps = planned();
            skip_bytes(&mut steps, bytes);
            assert_eq!((steps.front(), steps.len()), (Some(&first), count));
        }
        let mut steps = planned();
        skip_bytes(&mut steps, 60);
        assert!(steps.is_empty());
    }

    #[test]
    fn a_request_has_few_ranges_with_few_local_bytes_between_them() {
        let remote = |start: u64| AssemblyStep::Remote(start..start + 1);
        let many: Vec<_> = (0..2 * MAX_RANGES as u64)
            .map(|one| remote(2 * one))
            .collect();
        assert_eq!(next_ranges(&many).len(), MAX_RANGES);
        let far = [
            remote(0),
            AssemblyStep::Local(0..MAX_LOCAL_BYTES),
            AssemblyStep::Local(0..1),
            remote(MAX_LOCAL_BYTES + 2),
        ];
        assert_eq!(next_ranges(&far).len(), 1);
    }
}

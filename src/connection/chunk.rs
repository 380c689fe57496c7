//! The length of data frames: short on a slow connection, so that a small reply does not wait long
//! behind one, and longer on a fast connection, where the cost per frame dominates.

use std::time::Duration;

/// The bytes of a data frame on a slow connection, or before its speed is known.
pub const SHORT_CHUNK_BYTES: usize = 128 * 1024;

/// The bytes of a data frame on a fast connection.
pub const LONG_CHUNK_BYTES: usize = 4 * SHORT_CHUNK_BYTES;

/// A frame that is written within this time may be followed by one that is twice as long.
const FAST_WRITE: Duration = Duration::from_millis(4);

/// The length of the next data frame of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLength(usize);

impl Default for ChunkLength {
    fn default() -> Self {
        Self(SHORT_CHUNK_BYTES)
    }
}

impl ChunkLength {
    /// The length in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Adapts the length to the time that a frame of this length took.
    pub fn adapt(&mut self, time: Duration) {
        if time < FAST_WRITE {
            self.0 = (self.0 * 2).min(LONG_CHUNK_BYTES);
        } else if time > 2 * FAST_WRITE {
            self.0 = (self.0 / 2).max(SHORT_CHUNK_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_grow_where_they_leave_at_once_and_shrink_where_they_do_not() {
        let mut length = ChunkLength::default();
        let mut lengths = |milliseconds: u64, times| {
            for _ in 0..times {
                length.adapt(Duration::from_millis(milliseconds));
            }
            length.bytes()
        };
        assert_eq!(lengths(0, 1), 2 * SHORT_CHUNK_BYTES);
        assert_eq!(lengths(0, 9), LONG_CHUNK_BYTES);
        assert_eq!(lengths(6, 9), LONG_CHUNK_BYTES, "neither fast nor slow");
        assert_eq!(lengths(100, 1), LONG_CHUNK_BYTES / 2);
        assert_eq!(lengths(100, 9), SHORT_CHUNK_BYTES);
    }
}

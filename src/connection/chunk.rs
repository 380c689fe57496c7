//! How long data frames are: short where the line is slow, so that a small reply does not wait long
//! behind one; longer where it is fast and each frame costs more than its bytes.

use std::time::Duration;

/// Bytes of file in a data frame, on a line of which nothing is known or that is slow.
pub const CHUNK: usize = 128 * 1024;

/// The same on a fast line.
pub const LONG_CHUNK: usize = 4 * CHUNK;

/// A frame that leaves within this may be followed by one twice as long.
const QUICK: Duration = Duration::from_millis(4);

/// The length of the next data frame on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLength(usize);

impl Default for ChunkLength {
    fn default() -> Self {
        Self(CHUNK)
    }
}

impl ChunkLength {
    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Notes how long the line took for a frame of this length.
    pub fn took(&mut self, time: Duration) {
        if time < QUICK {
            self.0 = (self.0 * 2).min(LONG_CHUNK);
        } else if time > 2 * QUICK {
            self.0 = (self.0 / 2).max(CHUNK);
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
                length.took(Duration::from_millis(milliseconds));
            }
            length.bytes()
        };
        assert_eq!(lengths(0, 1), 2 * CHUNK);
        assert_eq!(lengths(0, 9), LONG_CHUNK);
        assert_eq!(lengths(6, 9), LONG_CHUNK, "neither fast nor slow");
        assert_eq!(lengths(100, 1), LONG_CHUNK / 2);
        assert_eq!(lengths(100, 9), CHUNK);
    }
}

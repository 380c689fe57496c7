//! Blocks of memory for large frames, used again once nobody holds a part of them.
//!
//! A new block of this size costs the kernel as much as the bytes that come to lie in it: it has to
//! find and clear the pages.

use bytes::BytesMut;

use crate::connection::LONG_CHUNK;

/// Bytes of a block: one of the longest frames that haul itself sends, or four short ones.
pub(super) const BLOCK: usize = LONG_CHUNK + 256;

/// A frame of so many bytes or more lies in a block. Whoever holds a part of it holds a block: eight
/// times as much at most.
pub(super) const LARGE: usize = BLOCK / 8;

/// Blocks that one connection uses again, besides the one that fills.
const MOST: usize = 6;

/// The blocks of a connection but for the one that fills.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<BytesMut>);

impl Blocks {
    /// An empty block with room for so many bytes: one that nobody uses any more, or a new one.
    pub(super) fn take(&mut self, size: usize) -> BytesMut {
        let free = self.0.iter_mut().position(|block| block.try_reclaim(size));
        match free {
            Some(free) => self.0.swap_remove(free),
            None => BytesMut::with_capacity(size),
        }
    }

    /// Takes back a block of which parts may be in use.
    pub(super) fn give_back(&mut self, mut block: BytesMut) {
        block.clear();
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(block);
    }

    /// Bytes of memory that are kept.
    #[cfg(test)]
    pub(super) fn holds(&self) -> usize {
        self.0.len() * BLOCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_nobody_holds_a_part_of_it() {
        let mut blocks = Blocks::default();
        let mut block = blocks.take(BLOCK);
        block.extend_from_slice(&[1; 100]);
        let part = block.split_to(100).freeze();
        let address = part.as_ptr();
        blocks.give_back(block);
        let other = blocks.take(BLOCK);
        assert_ne!(other.as_ptr(), address, "it is in use");
        blocks.give_back(other);
        drop(part);
        let found = [blocks.take(BLOCK), blocks.take(BLOCK)];
        assert!(found.iter().any(|block| block.as_ptr() == address));
        assert!(
            found
                .iter()
                .all(|block| block.is_empty() && block.capacity() >= BLOCK)
        );
    }

    #[test]
    fn no_more_blocks_are_kept_than_a_connection_uses() {
        let mut blocks = Blocks::default();
        for _ in 0..10 {
            blocks.give_back(BytesMut::with_capacity(BLOCK));
        }
        assert_eq!(blocks.0.len(), MOST);
    }
}

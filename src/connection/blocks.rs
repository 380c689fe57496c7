//! A pool of memory blocks for large frames. A block is reused once no frame refers to it.
//!
//! For the kernel, a new block of this size costs as much as receiving its content: it must find
//! and clear the pages.

use bytes::BytesMut;

use crate::connection::LONG_CHUNK_BYTES;

/// The size of a block: one of the longest frames that haul sends, or four short ones.
pub(super) const BLOCK_BYTES: usize = LONG_CHUNK_BYTES + 256;

/// The least size of a frame that stays in its block. Such a frame keeps the whole block in memory,
/// which is at most eight times its own size.
pub(super) const LARGE_FRAME_BYTES: usize = BLOCK_BYTES / 8;

/// The most blocks that a connection keeps for reuse, besides the current one.
const MAX_SPARE_BLOCKS: usize = 6;

/// The blocks of a connection, without the current one.
#[derive(Debug, Default)]
pub(super) struct BlockPool(Vec<BytesMut>);

impl BlockPool {
    /// Returns an empty block of at least `size` bytes: an unused one, or a new one.
    pub(super) fn acquire(&mut self, size: usize) -> BytesMut {
        let free = self.0.iter_mut().position(|block| block.try_reclaim(size));
        match free {
            Some(free) => self.0.swap_remove(free),
            None => BytesMut::with_capacity(size),
        }
    }

    /// Returns a block to the pool. Frames may still refer to parts of it.
    pub(super) fn release(&mut self, mut block: BytesMut) {
        block.clear();
        if self.0.len() >= MAX_SPARE_BLOCKS {
            self.0.remove(0);
        }
        self.0.push(block);
    }

    /// The memory of the pool in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.len() * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_nobody_holds_a_part_of_it() {
        let mut blocks = BlockPool::default();
        let mut block = blocks.acquire(BLOCK_BYTES);
        block.extend_from_slice(&[1; 100]);
        let part = block.split_to(100).freeze();
        let address = part.as_ptr();
        blocks.release(block);
        let other = blocks.acquire(BLOCK_BYTES);
        assert_ne!(other.as_ptr(), address, "it is in use");
        blocks.release(other);
        drop(part);
        let found = [blocks.acquire(BLOCK_BYTES), blocks.acquire(BLOCK_BYTES)];
        assert!(found.iter().any(|block| block.as_ptr() == address));
        assert!(
            found
                .iter()
                .all(|block| block.is_empty() && block.capacity() >= BLOCK_BYTES)
        );
    }

    #[test]
    fn no_more_blocks_are_kept_than_a_connection_uses() {
        let mut blocks = BlockPool::default();
        for _ in 0..10 {
            blocks.release(BytesMut::with_capacity(BLOCK_BYTES));
        }
        assert_eq!(blocks.0.len(), MAX_SPARE_BLOCKS);
    }
}

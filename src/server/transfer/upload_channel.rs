//! The channel that takes the data of one upload from the request loop to the task that writes it.
//!
//! The channel is bounded, and each chunk holds a share of the session's budget until it is written.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{BadRequest, End};

/// Parts of one upload that may wait for the disk; the budget binds first unless they are tiny.
const MAX_WAITING_PARTS: usize = 16;

/// A part of an upload.
#[derive(Debug)]
pub(crate) enum UploadPart {
    /// The next bytes, with their share of the budget until they are written.
    Chunk(Bytes, OwnedSemaphorePermit),
    /// The next bytes are this part of the base. It takes no share of the budget: its bytes do not wait
    /// in memory.
    Copy(Range<u64>),
    /// No more data comes, and the upload counts among the unfinished requests from now on. It is
    /// discarded and answered with the error if its `end` was malformed.
    End(Result<End, BadRequest>, Option<OwnedSemaphorePermit>),
}

/// The request loop's end of the channel. It compares the received bytes with the declared size.
#[derive(Debug)]
pub(crate) struct UploadSender {
    parts: mpsc::Sender<UploadPart>,
    declared: Option<u64>,
    received: u64,
    offset: Arc<AtomicU64>,
}

/// The task's end of the channel.
#[derive(Debug)]
pub(crate) struct UploadReceiver {
    pub(crate) parts: mpsc::Receiver<UploadPart>,
    /// Bytes that the server has of an earlier attempt. The task sets it before it asks for more.
    pub(crate) offset: Arc<AtomicU64>,
}

/// Makes the channel of an upload of `declared` bytes.
pub(crate) fn upload_channel(declared: Option<u64>) -> (UploadSender, UploadReceiver) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_PARTS);
    let offset = Arc::new(AtomicU64::new(0));
    let sender = UploadSender {
        parts: sender,
        declared,
        received: 0,
        offset: Arc::clone(&offset),
    };
    let receiver = UploadReceiver {
        parts: receiver,
        offset,
    };
    (sender, receiver)
}

impl UploadSender {
    /// Whether the task still receives. If not, it has answered the upload.
    pub(crate) fn is_open(&self) -> bool {
        !self.parts.is_closed()
    }

    /// Counts received or copied bytes.
    ///
    /// # Errors
    /// The declared size, if there are more bytes.
    pub(crate) fn count(&mut self, bytes: u64) -> Result<(), u64> {
        self.received = self.received.saturating_add(bytes);
        let offset = self.offset.load(Ordering::Relaxed);
        match self.declared {
            Some(declared) if self.received.saturating_add(offset) > declared => Err(declared),
            _ => Ok(()),
        }
    }

    /// Passes on a part, and waits while the disk is slower than the network. A task that has answered
    /// already receives nothing more, so the part is dropped.
    pub(crate) async fn send(&self, part: UploadPart) {
        let _ = self.parts.send(part).await;
    }
}

/// The same bytes. A short chunk is copied, so that it does not keep a large block of memory alive.
pub(crate) fn unpinned(chunk: Bytes) -> Bytes {
    if chunk.len() < SHORT_CHUNK_BYTES {
        Bytes::copy_from_slice(&chunk)
    } else {
        chunk
    }
}

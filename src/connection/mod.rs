//! Connections: frames over any byte stream, for the server and the client alike.
//!
//! One task owns the reading half through a [`Receiver`], and one task owns the writing half through
//! [`write_frames`]. All others hold an [`Outbox`]. It has a bounded queue for replies and one for
//! data frames, so that a small reply overtakes queued file data, and an [`EventQueue`] for events.
//! A sender waits while its queue is full; an event is rejected instead.

mod blocks;
mod chunk;
mod events;
mod file_part;
mod frame_sink;
mod outbox;
mod read_ahead;
mod receiver;
mod write_deadline;

pub use crate::connection::chunk::{ChunkLength, LONG_CHUNK_BYTES, SHORT_CHUNK_BYTES};
pub use crate::connection::events::{
    DeliveryReceipt, EventObserver, EventQueue, EventQueueFull, QueuedEvent,
};
pub use crate::connection::file_part::{
    BlockingPool, FilePart, FileSource, SendOutcome, SendProgress,
};
pub use crate::connection::frame_sink::FrameSink;
pub use crate::connection::outbox::{DataSlot, Outbox, OutboxClosed, OutboxQueue, write_frames};
pub use crate::connection::read_ahead::ReadAhead;
pub use crate::connection::receiver::{ReceiveError, Receiver};

#[cfg(test)]
mod tests;

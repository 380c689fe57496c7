//! A connection: typed send and receive over any byte stream, the same for server and client.
//!
//! One task owns the reading half through a [`Receiver`], one the writing half through
//! [`write_frames`]. Everyone else holds an [`Outbox`], which is bounded: who sends faster than the
//! peer reads waits. The outbox has lanes, so that a small reply overtakes queued file bytes; what
//! the server says without being asked has one of its own, the [`EventLane`].

mod blocks;
mod chunk;
mod events;
mod file_part;
mod frame_sink;
mod outbox;
mod read_ahead;
mod receiver;

pub use crate::connection::chunk::{CHUNK, ChunkLength, LONG_CHUNK};
pub use crate::connection::events::{
    DeliveryReceipt, EventObserver, EventQueue, EventQueueFull, QueuedEvent,
};
pub use crate::connection::file_part::{
    BlockingPool, FilePart, FileSource, ReadProgress, SendOutcome,
};
pub use crate::connection::frame_sink::FrameSink;
pub use crate::connection::outbox::{Closed, DataSlot, Outbox, OutboxQueue, write_frames};
pub use crate::connection::read_ahead::ReadAhead;
pub use crate::connection::receiver::{ReceiveError, Receiver};

#[cfg(test)]
mod tests;

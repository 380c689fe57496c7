//! Limits at the door and in sessions: what one address, one user and everyone may take, and how
//! fast secrets may be guessed.
//!
//! Each is a small state machine that knows no socket and is told the time. All that they remember
//! is bounded. Settings come with each call, so that those that change while the server runs count
//! from the next one on.

pub(crate) mod descriptors;
pub(crate) mod key_counter;
pub(crate) mod log_throttle;
pub(crate) mod login_queue;
pub(crate) mod login_throttle;
pub(crate) mod message_rate;
pub(crate) mod request_lines;

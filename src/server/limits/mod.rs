//! Limits for addresses and users: failed logins, messages, logins that wait for a password hash, log
//! lines, and file descriptors.
//!
//! Each limiter is a small state machine that takes the time as an argument and does no I/O. Its memory
//! is bounded. Settings are passed with each call, so a changed setting applies from the next call.

pub(crate) mod descriptors;
pub(crate) mod key_counter;
pub(crate) mod log_throttle;
pub(crate) mod login_queue;
pub(crate) mod login_throttle;
pub(crate) mod message_rate;
pub(crate) mod request_lines;

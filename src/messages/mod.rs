//! Messages.

pub mod watches;

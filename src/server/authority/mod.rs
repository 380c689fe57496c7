//! The rights of each account that is in use, as they are now.
//!
//! One [`Authority`] exists for each account and credential with open sessions. All of these
//! sessions, and all work done for them, share it. A background task, the keeper, watches the
//! accounts for changes, reads the rights of all live authorities in one query, and updates each
//! authority in place; sessions take no part in this. If an account may now reach other spaces, the
//! [`opener`] opens these on its own threads, and the account changes once its own spaces are open.
//! A space that opens too late is kept for the next attempt.
//!
//! An account is suspended if it cannot be read within one second, or if its spaces cannot be opened
//! within one second: its requests fail with a transient error until its rights are known again.
//! Its spaces stay open meanwhile, so their counts remain valid. An authority whose account or token
//! has ended is closed for good, and its sessions end.
//!
//! Identity is a number. A name leads to a directory only while the account or folder with that
//! number has the name: both are read again after the directories are open.
//!
//! Locks are held for lookups only, never across an await point or I/O.

pub(crate) mod live_authority;
pub(crate) mod opener;
pub(crate) mod registry;
pub(crate) mod spaces;
pub(crate) mod suspension;
pub(crate) mod table;

pub(crate) use crate::server::authority::live_authority::{Authority, AuthorityState};
pub(crate) use crate::server::authority::registry::Authorities;
pub(crate) use crate::server::authority::suspension::SuspensionCause;

#[cfg(test)]
pub(crate) mod tests;

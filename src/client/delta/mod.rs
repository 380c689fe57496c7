//! Transfers of changed files, of which only the changed parts cross the network.
//!
//! One side has an old version of the file. Both versions are cut into content chunks; the server lists
//! those of its file. The receiving side assembles the new version in a file of its own from parts of its
//! old one and the parts that are sent, and the digest of the whole is compared. An interrupted transfer
//! is continued after the bytes that the receiving side has of the new version. If anything is odd (the
//! other side has no such file or does not know deltas, a file changes meanwhile, the digests differ),
//! the whole file is transferred instead.

mod assembly;
mod chunk_list;
mod download;
mod plan;
mod ranges;
mod resumption;
mod upload;

pub use crate::client::delta::chunk_list::DeltaBytes;
pub(crate) use crate::client::delta::chunk_list::is_worth_while;

#[cfg(test)]
mod tests;

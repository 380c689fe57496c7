//! An entry of a tree that is downloaded.

use std::path::PathBuf;

/// An entry, by its path on the server and its path here.
#[derive(Clone)]
pub(super) struct LocalTarget {
    pub(super) remote: String,
    pub(super) local: PathBuf,
    /// Below what was asked for; 0 is what was asked for, which the user named.
    pub(super) level: u32,
}

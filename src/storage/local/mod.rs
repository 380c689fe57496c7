//! The embedded storage engine: a directory on a local file system.

pub(crate) mod backup;
pub(crate) mod copy;
pub(crate) mod count;
pub(crate) mod data;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod listing;
pub(crate) mod quota;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod space;
pub(crate) mod space_use;
pub(crate) mod store;
pub(crate) mod tally;
pub(crate) mod upload;
pub(crate) mod view;

//! The file system of the embedded engine: path resolution, staging, directories, metadata, and the
//! attributes that store versions, digests and modes.

pub(crate) mod attributes;
pub(crate) mod digest;
pub(crate) mod directories;
pub(crate) mod install;
pub(crate) mod metadata;
pub(crate) mod mode;
pub(crate) mod publish;
pub(crate) mod resolved_path;
pub(crate) mod sandbox;
pub(crate) mod staging;
pub(crate) mod tree;
pub(crate) mod unsynced;
pub(crate) mod verify;

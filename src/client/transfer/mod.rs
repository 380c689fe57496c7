//! Transfers of whole files between local files and the server.

pub(crate) mod blocking;
pub(crate) mod download;
pub(crate) mod file;
pub(crate) mod options;
pub(crate) mod part_file;
pub(crate) mod progress;
pub(crate) mod receive;
pub(crate) mod request;
pub(crate) mod send;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod umask;
pub(crate) mod upload;

//! Files: the one place through which all file bytes pass.
mod error;
mod path;
mod rights;
mod view;

pub use error::StorageError;
pub use path::{InvalidPath, InvalidPathReason, VirtualPath};
pub use rights::{InvalidRights, Limits, Rights, Usage};
pub use view::*;

//! Changes of files as values: what happened to a name, and what a view shows of it.

use std::sync::Arc;

use crate::protocol::ChangeKind;
use crate::storage::path::VirtualPath;

/// A change of a name in a home or a shared folder that survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Identifies the home or folder. A later one of the same name has another identifier.
    pub space: Arc<str>,
    /// The path within it, without a symbolic link on the way.
    pub path: VirtualPath,
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The space and the path within it that a moved entry had before.
    pub from: Option<(Arc<str>, VirtualPath)>,
    /// The user who made the change.
    pub by: Arc<str>,
}

/// The part of a space that a view shows at and below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisiblePath {
    /// Identifies the home or folder, as in [`FileChange::space`].
    pub space: Arc<str>,
    /// The path within it, without a symbolic link on the way.
    pub inner: VirtualPath,
    /// The path in the view.
    pub path: VirtualPath,
    /// Names in the root of the space that a mounted folder hides.
    pub hidden: Vec<String>,
}

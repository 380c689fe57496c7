//! The model: a tree in memory, and the effect of each request on it according to PROTOCOL.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use haul::protocol::{ErrorCode, IfExists};
use haul::storage::VirtualPath;

/// The entry that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelNode {
    Dir,
    File(Arc<Vec<u8>>),
}

/// Files and directories by path; the root is always there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileModel(BTreeMap<VirtualPath, ModelNode>);

/// The subtree that a request reads or changes.
#[derive(Debug, Clone)]
pub(crate) struct Touch {
    path: VirtualPath,
    writes: bool,
}

impl Touch {
    pub(crate) fn reads(path: &VirtualPath) -> Self {
        let path = path.clone();
        Self {
            path,
            writes: false,
        }
    }

    pub(crate) fn writes(path: &VirtualPath) -> Self {
        let path = path.clone();
        Self { path, writes: true }
    }

    /// Whether the order of the two matters.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        (self.writes || other.writes)
            && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

impl FileModel {
    /// The entries below `root` on the disk.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_below(root, &VirtualPath::root());
        tree
    }

    fn read_below(&mut self, dir: &Path, path: &VirtualPath) {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a sound name");
            let path = path.join_name(&name).expect("a sound name");
            if entry.file_type().expect("a type").is_dir() {
                self.0.insert(path.clone(), ModelNode::Dir);
                self.read_below(&entry.path(), &path);
            } else {
                let content = std::fs::read(entry.path()).expect("a file");
                self.0.insert(path, ModelNode::File(content.into()));
            }
        }
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.0.values().filter_map(|node| match node {
            ModelNode::File(content) => Some(&**content),
            ModelNode::Dir => None,
        })
    }

    /// Bytes in all files, and the number of files and directories.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let sizes = self.files().map(|content| content.len() as u64);
        (sizes.sum(), self.0.len() as u64)
    }

    /// The number of missing directories on `path`, itself included.
    pub(crate) fn missing(&self, path: &VirtualPath) -> u64 {
        let way = std::iter::successors(Some(path.clone()), VirtualPath::parent);
        let missing = way.filter(|dir| dir.name().is_some() && !self.0.contains_key(dir));
        missing.count() as u64
    }

    pub(crate) fn look(&self, path: &VirtualPath) -> Result<ModelNode, ErrorCode> {
        let Some(parent) = path.parent() else {
            return Ok(ModelNode::Dir);
        };
        match self.look(&parent)? {
            ModelNode::File(_) => Err(ErrorCode::NotADirectory),
            ModelNode::Dir => self.0.get(path).cloned().ok_or(ErrorCode::NotFound),
        }
    }

    /// Names and kinds in a directory.
    pub(crate) fn list(&self, path: &VirtualPath) -> Vec<(String, ModelNode)> {
        let children = self
            .0
            .iter()
            .filter(|(child, _)| child.parent().as_ref() == Some(path));
        let named = children.map(|(child, node)| {
            let name = child.name().expect("not the root").to_owned();
            (name, node.clone())
        });
        named.collect()
    }

    /// The path itself and all below it.
    pub(crate) fn below(&self, path: &VirtualPath) -> Self {
        let below = self.0.iter().filter(|(child, _)| child.starts_with(path));
        Self(
            below
                .map(|(path, node)| (path.clone(), node.clone()))
                .collect(),
        )
    }

    /// The most levels of any path.
    pub(crate) fn deepest(&self) -> usize {
        let levels = self.0.keys().map(|path| path.components().count());
        levels.max().unwrap_or(0)
    }

    /// The errors that the rules for names allow for publishing an entry at `to`.
    pub(crate) fn publish_errors(
        &self,
        to: &VirtualPath,
        is_dir: bool,
        if_exists: IfExists,
        parents: bool,
    ) -> Vec<ErrorCode> {
        let mut errors = Vec::new();
        if !is_dir && to.as_file().is_err() {
            errors.push(ErrorCode::InvalidPath);
        }
        let Some(parent) = to.parent() else {
            return vec![ErrorCode::IsADirectory];
        };
        match self.look(&parent) {
            Ok(ModelNode::Dir) => {}
            Ok(ModelNode::File(_)) => errors.push(ErrorCode::NotADirectory),
            Err(ErrorCode::NotFound) if parents => {}
            Err(code) => errors.push(code),
        }
        match (self.look(to), if_exists) {
            (Ok(_), IfExists::Fail) => errors.push(ErrorCode::Exists),
            (Ok(ModelNode::Dir), IfExists::Replace) if is_dir => errors.push(ErrorCode::Exists),
            (Ok(ModelNode::Dir), IfExists::Replace) => errors.push(ErrorCode::IsADirectory),
            (Ok(_), IfExists::Replace) if is_dir => errors.push(ErrorCode::NotADirectory),
            _ => {}
        }
        errors
    }

    /// The path at which an entry for `to` is published.
    pub(crate) fn publish(
        &self,
        to: &VirtualPath,
        is_dir: bool,
        if_exists: IfExists,
    ) -> VirtualPath {
        if if_exists != IfExists::Rename || to.name().is_none() || self.look(to).is_err() {
            return to.clone();
        }
        let name = to.name().expect("not the root");
        let dot = name.rfind('.').filter(|dot| *dot > 0 && !is_dir);
        let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
        let parent = to.parent().expect("not the root");
        let mut numbered = (1..).map(|number| {
            let name = format!("{stem} ({number}){extension}");
            parent.join_name(&name).expect("a sound name")
        });
        let free = numbered.find(|path| !self.0.contains_key(path));
        free.expect("some number is free")
    }

    /// The paths that change when an entry is published at `to`.
    pub(crate) fn publish_touch(
        &self,
        to: &VirtualPath,
        if_exists: IfExists,
        parents: bool,
    ) -> Touch {
        let missing = self.first_missing(to);
        match (to.parent(), if_exists) {
            _ if parents && missing != *to => Touch::writes(&missing),
            (Some(parent), IfExists::Rename) => Touch::writes(&parent),
            _ => Touch::writes(to),
        }
    }

    /// The topmost missing directory on the path, or the path itself.
    pub(crate) fn first_missing(&self, path: &VirtualPath) -> VirtualPath {
        match path.parent() {
            Some(parent) if self.look(&parent) == Err(ErrorCode::NotFound) => {
                self.first_missing(&parent)
            }
            _ => path.clone(),
        }
    }

    pub(crate) fn make_dirs(&mut self, path: &VirtualPath) {
        if let Some(parent) = path.parent() {
            self.make_dirs(&parent);
            self.0.entry(path.clone()).or_insert(ModelNode::Dir);
        }
    }

    pub(crate) fn put(&mut self, path: &VirtualPath, content: Arc<Vec<u8>>) {
        self.make_dirs(&path.parent().expect("not the root"));
        self.0.insert(path.clone(), ModelNode::File(content));
    }

    /// Returns the number of removed entries.
    pub(crate) fn remove(&mut self, path: &VirtualPath) -> u64 {
        let before = self.0.len();
        self.0.retain(|child, _| !child.starts_with(path));
        (before - self.0.len()) as u64
    }

    pub(crate) fn copy(&mut self, from: &VirtualPath, to: &VirtualPath) {
        let source = self.below(from);
        for (path, node) in source.0 {
            let rest = &path.as_str()[from.as_str().len()..];
            let path = format!("{to}{rest}");
            let path = VirtualPath::parse(&path).expect("not too deep");
            self.0.insert(path, node);
        }
    }

    pub(crate) fn rename(&mut self, from: &VirtualPath, to: &VirtualPath) {
        if from != to {
            let moved = self.below(from);
            self.remove(from);
            let mut whole = std::mem::take(self);
            let mut source = Self(moved.0);
            source.copy(from, to);
            source.remove(from);
            whole.0.extend(source.0);
            *self = whole;
        }
    }
}

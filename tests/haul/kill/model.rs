//! The expected contents of a session's directories, given the acknowledged and the pending operations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

/// A file with its content, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TreeNode {
    Dir,
    File { size: u64, digest: blake3::Hash },
}

impl TreeNode {
    pub(crate) fn file(bytes: &[u8]) -> Self {
        Self::File {
            size: bytes.len() as u64,
            digest: blake3::hash(bytes),
        }
    }
}

/// All entries below some directories, by absolute path.
pub(crate) type ModelTree = BTreeMap<String, TreeNode>;

/// Bytes in all files.
pub(crate) fn bytes(tree: &ModelTree) -> u64 {
    let sizes = tree.values().map(|node| match node {
        TreeNode::Dir => 0,
        TreeNode::File { size, .. } => *size,
    });
    sizes.sum()
}

/// The end of an upload that must not create a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlannedEnding {
    Right,
    WrongDigest,
    TooShort,
    Cancel,
}

/// The bytes of an upload.
#[derive(Clone)]
pub(crate) struct UploadContent(Arc<Vec<u8>>);

impl UploadContent {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn node(&self) -> TreeNode {
        TreeNode::file(&self.0)
    }
}

impl std::fmt::Debug for UploadContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node().fmt(f)
    }
}

/// An upload of a session.
#[derive(Debug, Clone)]
pub(crate) struct PlannedUpload {
    pub(crate) path: String,
    pub(crate) content: UploadContent,
    pub(crate) if_exists: &'static str,
    pub(crate) parents: bool,
    pub(crate) ending: PlannedEnding,
    /// It resumes an earlier attempt.
    pub(crate) resume: bool,
}

/// A change that a session asks for.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(PlannedUpload),
    MakeDir {
        path: String,
        parents: bool,
    },
    Remove {
        path: String,
    },
    Move {
        from: String,
        to: String,
        if_exists: &'static str,
    },
    Copy {
        from: String,
        to: String,
        if_exists: &'static str,
    },
}

/// The result of a change: the tree after it and the path in the reply, or the error's code.
pub(crate) type ChangeResult = Result<(ModelTree, Option<String>), &'static str>;

impl Change {
    /// The request, without the size and the data of an upload.
    pub(crate) fn request(&self) -> Value {
        match self {
            Self::Put(put) => put.request(),
            Self::MakeDir { path, parents } => {
                json!({"cmd": "mkdir", "path": path, "parents": parents})
            }
            Self::Remove { path } => json!({"cmd": "rm", "path": path, "recursive": true}),
            Self::Move {
                from,
                to,
                if_exists,
            } => json!({"cmd": "mv", "from": from, "to": to, "if_exists": if_exists}),
            Self::Copy {
                from,
                to,
                if_exists,
            } => json!({"cmd": "cp", "from": from, "to": to, "if_exists": if_exists}),
        }
    }

    /// The expected result, if no quota prevents it.
    pub(crate) fn outcome(&self, tree: &ModelTree) -> ChangeResult {
        let mut after = tree.clone();
        let path = match self {
            Self::Put(put) => Some(put.outcome(&mut after)?),
            Self::MakeDir { path, parents } => {
                if *parents {
                    for dir in missing_parents(tree, path) {
                        after.insert(dir, TreeNode::Dir);
                    }
                } else if tree.contains_key(path) {
                    return Err("exists");
                }
                after.insert(path.clone(), TreeNode::Dir);
                Some(path.clone())
            }
            Self::Remove { path } => {
                remove_subtree(&mut after, path);
                None
            }
            Self::Move {
                from,
                to,
                if_exists,
            } => {
                let to = target(tree, to, if_exists)?;
                for (path, node) in remove_subtree(&mut after, from) {
                    after.insert(format!("{to}{}", &path[from.len()..]), node);
                }
                Some(to)
            }
            Self::Copy {
                from,
                to,
                if_exists,
            } => {
                let to = target(tree, to, if_exists)?;
                for (path, node) in remove_subtree(&mut tree.clone(), from) {
                    after.insert(format!("{to}{}", &path[from.len()..]), node);
                }
                Some(to)
            }
        };
        Ok((after, path))
    }

    /// The possible states if the server is killed during the change: complete or absent. Only some
    /// of the missing parent directories may exist.
    pub(crate) fn states(&self, tree: &ModelTree) -> Vec<ModelTree> {
        let mut states = vec![tree.clone()];
        let Ok((after, _)) = self.outcome(tree) else {
            return states;
        };
        let (Self::Put(PlannedUpload { path, parents, .. }) | Self::MakeDir { path, parents }) =
            self
        else {
            states.push(after);
            return states;
        };
        if *parents {
            let mut partly = tree.clone();
            for dir in missing_parents(tree, path) {
                partly.insert(dir, TreeNode::Dir);
                states.push(partly.clone());
            }
        }
        states.push(after);
        states
    }
}

impl PlannedUpload {
    /// The request, without its size.
    pub(crate) fn request(&self) -> Value {
        json!({
            "cmd": "put", "path": self.path, "if_exists": self.if_exists,
            "parents": self.parents, "resume": self.resume,
        })
    }

    /// Applies the upload to the tree; returns the path in the reply.
    fn outcome(&self, tree: &mut ModelTree) -> Result<String, &'static str> {
        let node = self.content.node();
        if self.resume && self.if_exists != "rename" && tree.get(&self.path) == Some(&node) {
            // An earlier attempt was committed, and its reply was lost.
            return Ok(self.path.clone());
        }
        let (parent, _) = self.path.rsplit_once('/').expect("absolute");
        if !self.parents && !tree.contains_key(parent) {
            return Err("not_found");
        }
        let to = target(tree, &self.path, self.if_exists)?;
        match self.ending {
            PlannedEnding::Right => {}
            PlannedEnding::WrongDigest => return Err("digest_mismatch"),
            PlannedEnding::TooShort => return Err("size_mismatch"),
            PlannedEnding::Cancel => return Err("cancelled"),
        }
        if self.parents {
            for dir in missing_parents(tree, &self.path) {
                tree.insert(dir, TreeNode::Dir);
            }
        }
        tree.insert(to.clone(), node);
        Ok(to)
    }
}

/// The missing parent directories of `path`, the topmost first.
fn missing_parents(tree: &ModelTree, path: &str) -> BTreeSet<String> {
    let ends = path.match_indices('/').map(|(at, _)| &path[..at]);
    let dirs = ends.filter(|dir| !matches!(*dir, "" | "/team"));
    let missing = dirs.filter(|dir| !tree.contains_key(*dir));
    missing.map(str::to_owned).collect()
}

/// The path at which an upload to `path` is published.
fn target(tree: &ModelTree, path: &str, if_exists: &str) -> Result<String, &'static str> {
    match (tree.get(path), if_exists) {
        (None, _) | (Some(TreeNode::File { .. }), "replace") => Ok(path.to_owned()),
        (Some(_), "fail" | "replace") => Err("exists"),
        (Some(_), _) => {
            let (stem, extension) = path
                .rsplit_once(".bin")
                .map_or((path, ""), |(stem, _)| (stem, ".bin"));
            let mut names = (1..).map(|number| format!("{stem} ({number}){extension}"));
            Ok(names
                .find(|name| !tree.contains_key(name))
                .expect("endless"))
        }
    }
}

/// Removes `path` and everything below it.
fn remove_subtree(tree: &mut ModelTree, path: &str) -> ModelTree {
    let below = format!("{path}/");
    let (taken, left) = std::mem::take(tree)
        .into_iter()
        .partition(|(name, _)| name == path || name.starts_with(&below));
    *tree = left;
    taken
}

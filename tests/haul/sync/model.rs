//! A model of a sync that shares no code with it: two trees in memory, merged by recursion.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haul::client::sync::{Comparison, SyncRules};

use crate::random::Chance;

/// The ending of the names that the filter excludes.
pub(super) const EXCLUDED: &str = ".x";

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SyncModelNode {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileNode {
    pub(super) content: Vec<u8>,
    pub(super) modified: SystemTime,
    /// Unknown where no sync has set it.
    pub(super) mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DirNode {
    pub(super) entries: BTreeMap<String, SyncModelNode>,
    /// Unknown where the names in it may have changed.
    pub(super) modified: Option<SystemTime>,
    pub(super) mode: Option<u32>,
}

/// The state of the destination after a sync.
pub(super) fn merged(source: &DirNode, destination: &DirNode, rules: SyncRules) -> DirNode {
    let mut names: Vec<_> = source
        .entries
        .keys()
        .chain(destination.entries.keys())
        .collect();
    names.sort();
    names.dedup();
    let mut entries = BTreeMap::new();
    for name in names {
        let (new, old) = (source.entries.get(name), destination.entries.get(name));
        let result = if name.ends_with(EXCLUDED) {
            old.cloned()
        } else {
            merged_entry(new, old, rules)
        };
        if let Some(node) = result {
            entries.insert(name.clone(), node);
        }
    }
    DirNode {
        entries,
        modified: source.modified,
        mode: source.mode,
    }
}

fn merged_entry(
    new: Option<&SyncModelNode>,
    old: Option<&SyncModelNode>,
    rules: SyncRules,
) -> Option<SyncModelNode> {
    match (new, old) {
        (None, None) => None,
        (Some(_), None) if rules.existing => None,
        (None, Some(old)) if rules.delete => only_excluded(old),
        (None, Some(old)) => Some(with_unknown_time(old)),
        (Some(SyncModelNode::Dir(new)), Some(SyncModelNode::Dir(old))) => {
            Some(SyncModelNode::Dir(merged(new, old, rules)))
        }
        (Some(SyncModelNode::File(new)), Some(SyncModelNode::File(old))) => {
            Some(SyncModelNode::File(merged_file(new, old, rules)))
        }
        (Some(_), Some(old)) if rules.ignore_existing || !rules.delete => {
            Some(with_unknown_time(old))
        }
        // `--existing` makes no directory, also not in the place of a file.
        (Some(SyncModelNode::Dir(_)), Some(old)) if rules.existing => Some(with_unknown_time(old)),
        // A directory that cannot be replaced stays whole.
        (Some(_), Some(old @ SyncModelNode::Dir(_))) if only_excluded(old).is_some() => {
            Some(with_unknown_time(old))
        }
        (Some(new), _) => Some(without_excluded(new)),
    }
}

fn merged_file(new: &FileNode, old: &FileNode, rules: SyncRules) -> FileNode {
    if rules.ignore_existing || (rules.update && old.modified > new.modified) {
        return old.clone();
    }
    let is_equal = new.content.len() == old.content.len()
        && match rules.comparison {
            Comparison::Time => new.modified == old.modified,
            Comparison::Checksum => new.content == old.content,
            Comparison::SizeOnly => true,
        };
    FileNode {
        content: if is_equal { &old.content } else { &new.content }.clone(),
        ..new.clone()
    }
}

/// What a sync makes of an entry that the destination lacks.
fn without_excluded(node: &SyncModelNode) -> SyncModelNode {
    let SyncModelNode::Dir(directory) = node else {
        return node.clone();
    };
    let entries = directory.entries.iter();
    let entries = entries.filter(|(name, _)| !name.ends_with(EXCLUDED));
    SyncModelNode::Dir(DirNode {
        entries: entries
            .map(|(name, node)| (name.clone(), without_excluded(node)))
            .collect(),
        ..directory.clone()
    })
}

/// What a sync leaves of an entry that it deletes.
fn only_excluded(node: &SyncModelNode) -> Option<SyncModelNode> {
    let SyncModelNode::Dir(directory) = node else {
        return None;
    };
    let kept: BTreeMap<_, _> = directory
        .entries
        .iter()
        .filter_map(|(name, node)| {
            let kept = if name.ends_with(EXCLUDED) {
                Some(node.clone())
            } else {
                only_excluded(node)
            };
            Some((name.clone(), kept?))
        })
        .collect();
    let is_empty = kept.is_empty();
    let kept = SyncModelNode::Dir(DirNode {
        entries: kept,
        modified: None,
        mode: directory.mode,
    });
    (!is_empty).then_some(kept)
}

fn with_unknown_time(node: &SyncModelNode) -> SyncModelNode {
    match node {
        SyncModelNode::File(_) => node.clone(),
        SyncModelNode::Dir(directory) => SyncModelNode::Dir(DirNode {
            modified: None,
            ..directory.clone()
        }),
    }
}

/// Whether a tree is as the model expects it; where the model knows no time or mode, any will do.
pub(super) fn check(expected: &DirNode, actual: &DirNode, path: &str) -> Result<(), String> {
    let names = |directory: &DirNode| directory.entries.keys().cloned().collect::<Vec<_>>();
    if names(expected) != names(actual) {
        return Err(format!(
            "{path}: {:?} expected, and {:?} found",
            names(expected),
            names(actual)
        ));
    }
    for (name, node) in &expected.entries {
        let path = format!("{path}/{name}");
        let differs = |what: &str, expected: String, actual: String| {
            Err(format!(
                "{path}: {what} {expected} expected, and {actual} found"
            ))
        };
        match (node, &actual.entries[name]) {
            (SyncModelNode::File(expected), SyncModelNode::File(actual)) => {
                if expected.content != actual.content {
                    return differs("content", summary(expected), summary(actual));
                }
                if expected.modified != actual.modified {
                    let times = (expected.modified, actual.modified);
                    return differs("time", format!("{:?}", times.0), format!("{:?}", times.1));
                }
                check_mode(expected.mode, actual.mode, &path)?;
            }
            (SyncModelNode::Dir(expected), SyncModelNode::Dir(actual)) => {
                check(expected, actual, &path)?;
                if expected.modified.is_some() && expected.modified != actual.modified {
                    let times = (expected.modified, actual.modified);
                    return differs("time", format!("{:?}", times.0), format!("{:?}", times.1));
                }
                check_mode(expected.mode, actual.mode, &path)?;
            }
            _ => return differs("another kind", format!("{node:?}"), String::new()),
        }
    }
    Ok(())
}

fn check_mode(expected: Option<u32>, actual: Option<u32>, path: &str) -> Result<(), String> {
    if expected.is_some() && expected != actual {
        return Err(format!(
            "{path}: mode {expected:?} expected, and {actual:?} found"
        ));
    }
    Ok(())
}

fn summary(file: &FileNode) -> String {
    let start = &file.content[..file.content.len().min(8)];
    format!("{} bytes {start:?}", file.content.len())
}

/// A tree of a few entries whose names and contents are often equal to those of others.
pub(super) fn random_tree(chance: &mut Chance, depth: u32) -> DirNode {
    let mut entries = BTreeMap::new();
    for _ in 0..chance.below(6) {
        let name = *chance.pick(&["a", "b", "b.c", "d", "B", "e.x", "f.x", "ü"]);
        let node = if depth > 0 && chance.one_in(3) {
            SyncModelNode::Dir(random_tree(chance, depth - 1))
        } else {
            SyncModelNode::File(random_file(chance))
        };
        entries.insert(name.to_owned(), node);
    }
    DirNode {
        entries,
        modified: Some(random_time(chance)),
        mode: Some(*chance.pick(&[0o755, 0o700])),
    }
}

fn random_file(chance: &mut Chance) -> FileNode {
    let length = *chance.pick(&[0, 1, 3, 3, 100, 20_000, 200_000]);
    let digit = *chance.pick(b"ab");
    FileNode {
        content: vec![digit; length],
        modified: random_time(chance),
        mode: Some(*chance.pick(&[0o644, 0o600, 0o755])),
    }
}

fn random_time(chance: &mut Chance) -> SystemTime {
    let second = 1_600_000_000 + chance.below(3);
    SystemTime::UNIX_EPOCH + Duration::new(second, 123_456_789)
}

/// A tree that has most of another's entries.
pub(super) fn edited(tree: &DirNode, chance: &mut Chance) -> DirNode {
    let mut result = tree.clone();
    let names: Vec<_> = tree.entries.keys().cloned().collect();
    for name in names {
        match chance.below(8) {
            0 => {
                result.entries.remove(&name);
            }
            1 => {
                result
                    .entries
                    .insert(name, SyncModelNode::File(random_file(chance)));
            }
            2 => {
                if let Some(node) = result.entries.remove(&name) {
                    result.entries.insert("renamed".to_owned(), node);
                }
            }
            3 => {
                result
                    .entries
                    .insert(name, SyncModelNode::Dir(random_tree(chance, 1)));
            }
            _ => {
                if let Some(SyncModelNode::Dir(directory)) = result.entries.get_mut(&name) {
                    *directory = edited(directory, chance);
                }
            }
        }
    }
    result
}

/// Writes a tree to an empty directory.
pub(super) fn create(directory: &DirNode, path: &Path) {
    fs::create_dir_all(path).expect("made");
    for (name, node) in &directory.entries {
        let path = path.join(name);
        match node {
            SyncModelNode::Dir(directory) => create(directory, &path),
            SyncModelNode::File(file) => {
                fs::write(&path, &file.content).expect("written");
                set(&path, file.modified, file.mode);
            }
        }
    }
    if let Some(modified) = directory.modified {
        set(path, modified, directory.mode);
    }
}

fn set(path: &Path, modified: SystemTime, mode: Option<u32>) {
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }
    let file = File::open(path).expect("opened");
    file.set_modified(modified).expect("set");
}

/// Reads a tree.
pub(super) fn read(path: &Path) -> DirNode {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(path).expect("readable") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("UTF-8");
        let metadata = entry.metadata().expect("there");
        let node = if metadata.is_dir() {
            SyncModelNode::Dir(read(&entry.path()))
        } else {
            SyncModelNode::File(FileNode {
                content: fs::read(entry.path()).expect("readable"),
                modified: metadata.modified().expect("a time"),
                mode: Some(metadata.permissions().mode() & 0o777),
            })
        };
        entries.insert(name, node);
    }
    let metadata = path.metadata().expect("there");
    DirNode {
        entries,
        modified: Some(metadata.modified().expect("a time")),
        mode: Some(metadata.permissions().mode() & 0o777),
    }
}

/// The same tree with the modes that a server lists, by path, in the place of those on its disk.
pub(super) fn with_modes(mut tree: DirNode, modes: &BTreeMap<String, Option<u32>>) -> DirNode {
    replace_modes(&mut tree, "", modes);
    tree
}

fn replace_modes(tree: &mut DirNode, path: &str, modes: &BTreeMap<String, Option<u32>>) {
    tree.mode = modes.get(path).copied().flatten();
    for (name, node) in &mut tree.entries {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}/{name}")
        };
        match node {
            SyncModelNode::Dir(directory) => replace_modes(directory, &path, modes),
            SyncModelNode::File(file) => file.mode = modes.get(&path).copied().flatten(),
        }
    }
}

//! The plan is applied to model trees, which must then be equal as the rules say.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::client::ClientError;
use crate::client::sync::entry::compare_paths;
use crate::client::sync::merge::MergedListings;
use crate::client::sync::rules::Comparison;
use crate::protocol::{Algorithm, Digest, FileMode, Kind};

/// An entry of a model tree. The content of a file is its size and a digit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: Kind,
    size: u64,
    content: u8,
    second: i64,
    mode: u32,
    is_excluded: bool,
}

type Tree = BTreeMap<String, Node>;

fn entry(path: &str, node: &Node) -> SyncEntry {
    let content = [node.content, u8::try_from(node.size).expect("small")];
    SyncEntry {
        path: path.to_owned(),
        kind: node.kind,
        size: node.size,
        modified: Timestamp::from_second(node.second).expect("in range"),
        mode: Some(FileMode::from_st_mode(node.mode)),
        version: None,
        digest: Some(Digest::compute(Algorithm::Blake3, &content)),
    }
}

fn listing(tree: &Tree) -> Vec<Result<ListedItem, ClientError>> {
    let mut paths: Vec<_> = tree.keys().collect();
    paths.sort_by(|a, b| compare_paths(a, b));
    let item = |path: &String| {
        let node = &tree[path];
        Ok(if node.is_excluded {
            ListedItem::Withheld {
                path: path.clone(),
                reason: WithheldReason::Excluded,
            }
        } else {
            ListedItem::Entry(entry(path, node))
        })
    };
    paths.into_iter().map(item).collect()
}

fn plan(source: &Tree, destination: &Tree, rules: SyncRules) -> Vec<PlannedAction> {
    let listings = MergedListings::new(
        listing(source).into_iter(),
        listing(destination).into_iter(),
    );
    let mut planner = Planner::new(rules);
    let mut actions = Vec::new();
    for pair in listings {
        actions.extend(planner.push(pair.expect("no error")));
    }
    actions.extend(planner.finish());
    // The order of execution.
    actions.sort_by_key(|planned| planned.stage);
    actions
}

/// Applies the actions as a file system does: whatever changes the names in a directory changes its
/// time.
fn apply(actions: &[PlannedAction], source: &Tree, destination: &mut Tree) {
    for PlannedAction { action, .. } in actions {
        let path = action.path().to_owned();
        let parent = crate::client::sync::entry::parent_of(&path).to_owned();
        let has_parent = parent.is_empty()
            || destination
                .get(&parent)
                .is_some_and(|node| node.kind == Kind::Dir);
        let mut names_change = true;
        match action {
            SyncAction::MakeDirectory(_) => {
                assert!(has_parent, "{path} needs a directory");
                let made = Node {
                    second: 99,
                    mode: 0o111,
                    ..source[&path].clone()
                };
                assert!(destination.insert(path, made).is_none());
            }
            SyncAction::Transfer { replaces, .. } => {
                assert!(has_parent, "{path} needs a directory");
                let old = destination.insert(path, source[&path_of(action)].clone());
                assert_eq!(old.is_some(), replaces.is_some());
            }
            SyncAction::SetMetadata { change, .. } => {
                names_change = false;
                let node = destination.get_mut(&path).expect("an entry");
                if change.modified {
                    node.second = source[&path].second;
                }
                if change.mode {
                    node.mode = source[&path].mode;
                }
            }
            SyncAction::Delete(_) => {
                let content = format!("{path}/");
                assert!(!destination.keys().any(|other| other.starts_with(&content)));
                assert!(!destination.remove(&path).expect("an entry").is_excluded);
            }
            SyncAction::Keep(_) | SyncAction::Skip { .. } => names_change = false,
            SyncAction::Move { .. } | SyncAction::Copy { .. } => {
                unreachable!("the planner knows no renames")
            }
        }
        if names_change && let Some(parent) = destination.get_mut(&parent) {
            parent.second = 98;
        }
    }
}

fn path_of(action: &SyncAction) -> String {
    action.path().to_owned()
}

/// Whether anything at or above the path is excluded in one of the trees.
fn is_excluded(path: &str, trees: [&Tree; 2]) -> bool {
    trees.iter().any(|tree| {
        tree.iter()
            .any(|(other, node)| node.is_excluded && is_within(path, other))
    })
}

/// Whether the path is at or below an entry of one kind here and the other there.
fn is_of_two_kinds(path: &str, source: &Tree, destination: &Tree) -> bool {
    source.iter().any(|(other, node)| {
        is_within(path, other)
            && destination
                .get(other)
                .is_some_and(|there| there.kind != node.kind)
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let name = prop::sample::select(vec!["a", "b", "b.c", "d"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let node = (any::<bool>(), 0..3u64, 0..2u8, 0..3i64, 0..2u32, 0..12u8);
    prop::collection::btree_map(path, node, 0..14).prop_map(|nodes| {
        let mut tree = Tree::new();
        for (path, (is_dir, size, content, second, mode, exclusion)) in nodes {
            let directory = |second| Node {
                kind: Kind::Dir,
                size: 0,
                content: 0,
                second,
                mode,
                is_excluded: false,
            };
            let mut ancestors = path.match_indices('/').map(|(end, _)| &path[..end]);
            if ancestors.any(|ancestor| {
                tree.get(ancestor)
                    .is_some_and(|node: &Node| node.kind == Kind::File)
            }) {
                continue;
            }
            for (end, _) in path.match_indices('/') {
                tree.entry(path[..end].to_owned())
                    .or_insert_with(|| directory(second));
            }
            let node = if is_dir {
                directory(second)
            } else {
                Node {
                    kind: Kind::File,
                    size,
                    content,
                    ..directory(second)
                }
            };
            let is_excluded = exclusion == 0;
            tree.entry(path).or_insert(Node {
                is_excluded,
                ..node
            });
        }
        tree
    })
}

fn rules() -> impl Strategy<Value = SyncRules> {
    let comparison = prop::sample::select(vec![
        Comparison::Time,
        Comparison::Checksum,
        Comparison::SizeOnly,
    ]);
    let rare = || prop::bool::weighted(0.2);
    (comparison, rare(), rare(), rare(), any::<bool>()).prop_map(
        |(comparison, update, existing, ignore_existing, delete)| SyncRules {
            comparison,
            update,
            existing,
            ignore_existing,
            delete,
            modes: true,
        },
    )
}

proptest! {
    #[test]
    fn the_plan_makes_the_destination_what_the_rules_say(
        source in tree(),
        destination in tree(),
        rules in rules(),
    ) {
        let actions = plan(&source, &destination, rules);
        let mut result = destination.clone();
        apply(&actions, &source, &mut result);
        let is_complete = !rules.existing && !rules.ignore_existing && !rules.update;
        for (path, node) in &source {
            let free = !is_excluded(path, [&source, &destination]);
            let possible = rules.delete || !is_of_two_kinds(path, &source, &destination);
            if is_complete && free && possible && !holds_excluded(path, &source, &destination) {
                let there = result.get(path);
                prop_assert!(there.is_some(), "{} is missing", path);
                let there = there.expect("just checked");
                prop_assert_eq!(there.kind, node.kind);
                prop_assert_eq!((there.size, there.second, there.mode), (node.size, node.second, node.mode));
                if rules.comparison == Comparison::Checksum {
                    prop_assert_eq!(there.content, node.content);
                }
            }
        }
        for (path, node) in &destination {
            if is_excluded(path, [&source, &destination]) || !rules.delete {
                prop_assert!(result.contains_key(path), "{} was deleted", path);
            }
            if node.is_excluded {
                prop_assert_eq!(result.get(path), Some(node));
            }
            let is_surplus = !source.contains_key(path);
            if rules.delete && is_surplus && !holds_excluded(path, &source, &destination)
                && !is_excluded(path, [&source, &destination])
                && !(rules.ignore_existing && is_of_two_kinds(path, &source, &destination))
            {
                prop_assert!(!result.contains_key(path), "{} was not deleted", path);
            }
        }
    }

    #[test]
    fn what_disappears_is_in_the_plan_and_nothing_is_planned_twice(
        source in tree(),
        destination in tree(),
        rules in rules(),
    ) {
        let actions = plan(&source, &destination, rules);
        let deleted: BTreeSet<_> = actions
            .iter()
            .filter_map(|planned| match &planned.action {
                SyncAction::Delete(entry) => Some(entry.path.clone()),
                _ => None,
            })
            .collect();
        let mut result = destination.clone();
        apply(&actions, &source, &mut result);
        for path in destination.keys().filter(|path| !result.contains_key(*path)) {
            prop_assert!(deleted.contains(path), "{} disappeared", path);
        }
        let again = plan(&source, &result, rules);
        for PlannedAction { action, .. } in again {
            let is_idle = matches!(action, SyncAction::Skip { .. } | SyncAction::Keep(_));
            prop_assert!(is_idle, "planned again: {:?}", action);
        }
    }
}

/// Whether an excluded entry keeps this path, an ancestor of the same name in the other tree, or
/// the way to it from being replaced or deleted.
fn holds_excluded(path: &str, source: &Tree, destination: &Tree) -> bool {
    let excluded: Vec<_> = source
        .iter()
        .chain(destination)
        .filter(|(_, node)| node.is_excluded)
        .map(|(path, _)| path)
        .collect();
    let mut ancestors: Vec<_> = path
        .match_indices('/')
        .map(|(end, _)| &path[..end])
        .collect();
    ancestors.push(path);
    ancestors.into_iter().any(|ancestor| {
        let is_replaced = source.get(ancestor).map(|node| node.kind)
            != destination.get(ancestor).map(|node| node.kind);
        is_replaced && excluded.iter().any(|other| is_within(other, ancestor))
    })
}

//! The checks after a restart: the files on the disk and those that the server shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use walkdir::WalkDir;

use super::model::{ModelTree, TreeNode, bytes};
use super::register::Registers;
use super::session::{ModelSession, RunCounts, count};
use crate::blocking_client::BlockingSession;
use crate::daemon::wait_until_tidy;

/// A user, with the data that a check of its files needs.
pub(crate) struct CheckedUser {
    pub(crate) name: &'static str,
    pub(crate) token: String,
}

/// All entries below a directory of the server's disk, with the paths that members see.
pub(crate) fn on_disk(root: &Path, prefix: &str) -> ModelTree {
    let mut tree = ModelTree::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("readable");
        let inner = entry.path().strip_prefix(root).expect("below");
        let path = format!("{prefix}/{}", inner.to_str().expect("a name of ours"));
        let node = if entry.file_type().is_dir() {
            TreeNode::Dir
        } else {
            assert!(entry.file_type().is_file(), "{path} is no file");
            TreeNode::file(&fs::read(entry.path()).expect("readable"))
        };
        tree.insert(path, node);
    }
    tree
}

/// All entries that a user sees, with the content of all files.
pub(crate) fn through_server(client: &mut BlockingSession) -> ModelTree {
    let mut tree = ModelTree::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let mut request = json!({"cmd": "ls", "path": format!("{dir}/"), "limit": 7});
        loop {
            let page = client.ok(&request);
            for entry in page["entries"].as_array().expect("a list") {
                let path = format!("{dir}/{}", entry["name"].as_str().expect("a name"));
                if entry["kind"] == "dir" {
                    dirs.push(path.clone());
                    tree.insert(path, TreeNode::Dir);
                    continue;
                }
                let (content, reply) = client.get(&path).expect("the server lives");
                let node = TreeNode::file(&content);
                let digest = format!("blake3:{}", blake3::hash(&content).to_hex());
                assert_eq!(reply["ok"]["digest"], digest, "{path}: {reply}");
                assert_eq!(entry["size"], content.len(), "{path}");
                tree.insert(path, node);
            }
            if page["cursor"].is_null() {
                break;
            }
            request["cursor"] = page["cursor"].clone();
        }
    }
    tree
}

/// A partial upload.
struct KeptUpload {
    owner: &'static str,
    id: String,
    path: String,
    size: Option<u64>,
    bytes: u64,
}

impl KeptUpload {
    fn list(user: &CheckedUser, client: &mut BlockingSession) -> Vec<Self> {
        let listed = client.ok(&json!({"cmd": "uploads"}));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let kept = listed["uploads"].as_array().expect("a list").iter();
        kept.map(|kept| Self {
            owner: user.name,
            id: text(&kept["upload"]),
            path: text(&kept["path"]),
            size: kept["size"].as_u64(),
            bytes: kept["offset"].as_u64().expect("a number"),
        })
        .collect()
    }

    /// Whether it is charged to the home of `user`, or without a user to the folder.
    fn is_charged_to(&self, user: Option<&str>) -> bool {
        let is_in_folder = self.path.starts_with("/team/");
        user.map_or(is_in_folder, |user| !is_in_folder && self.owner == user)
    }
}

/// Asserts that `df` reports exactly the usage of `tree` and of the partial uploads.
fn assert_charged(
    client: &mut BlockingSession,
    user: Option<&str>,
    tree: &ModelTree,
    kept: &[KeptUpload],
) {
    let dir = user.map_or("/team", |_| "/");
    client.ok(&json!({"cmd": "cd", "path": dir}));
    let df = client.ok(&json!({"cmd": "df"}));
    let kept = kept.iter().filter(|kept| kept.is_charged_to(user));
    let kept: Vec<_> = kept.map(|kept| kept.bytes).collect();
    let bytes = bytes(tree) + kept.iter().sum::<u64>();
    let entries = (tree.len() + kept.len()) as u64;
    let charged = (df["used"].as_u64(), df["files"].as_u64());
    assert_eq!(
        charged,
        (Some(bytes), Some(entries)),
        "in {dir} of {user:?}"
    );
    if let Some(limit) = df["limit"].as_u64() {
        assert!(bytes <= limit, "{dir} holds more than {limit} bytes");
    }
}

/// Asserts that staging holds exactly the partial uploads in the end.
fn assert_staged(data: &Path, kept: &[KeptUpload]) {
    wait_until_tidy(data, 2 * kept.len());
    let staging = data.join("staging");
    let staged = fs::read_dir(&staging).expect("staging");
    let staged = staged.map(|entry| entry.expect("readable").file_name());
    let staged: BTreeSet<_> = staged
        .map(|name| name.into_string().expect("text"))
        .collect();
    for kept in kept {
        let bytes = fs::metadata(staging.join(&kept.id)).expect("there").len();
        assert_eq!(bytes, kept.bytes, "of {}", kept.path);
    }
    let names = kept.iter().map(|kept| &kept.id);
    let names = names.flat_map(|id| [id.clone(), format!("{id}.record")]);
    assert_eq!(staged, names.collect());
}

/// Discards some of the partial uploads of `user`.
fn discard_some(
    user: &CheckedUser,
    client: &mut BlockingSession,
    kept: &mut Vec<KeptUpload>,
    tally: &RunCounts,
) {
    kept.retain(|kept| {
        let goes = kept.owner == user.name && kept.id.ends_with(['0', '1', '2', '3', '4', '5']);
        if goes {
            client.ok(&json!({"cmd": "discard", "upload": kept.id}));
            count(&tally.discarded);
        }
        !goes
    });
}

/// Compares the actual files with each session's model, and updates the models.
pub(crate) fn check(
    data: &Path,
    address: &str,
    users: &[CheckedUser],
    sessions: &mut [ModelSession],
    registers: &[(String, Arc<Registers>)],
) {
    let tally = Arc::clone(&sessions[0].tally);
    let log_in = |user: &CheckedUser| {
        BlockingSession::log_in(address, &user.token).expect("the server lives")
    };
    let mut lines: Vec<_> = users.iter().map(log_in).collect();
    let mut kept = Vec::new();
    for (user, line) in users.iter().zip(&mut lines) {
        kept.extend(KeptUpload::list(user, line));
    }
    assert_staged(data, &kept);
    let folder = on_disk(&data.join("folders/team"), "/team");
    for (user, line) in users.iter().zip(&mut lines) {
        let home = on_disk(&data.join("homes").join(user.name), "");
        let mut seen = through_server(line);
        assert_eq!(seen.remove("/team"), Some(TreeNode::Dir));
        let mut actual = home.clone();
        actual.extend(folder.clone());
        assert!(seen == actual, "the server and its disk disagree");
        for _ in 0..2 {
            assert_staged(data, &kept);
            assert_charged(line, Some(user.name), &home, &kept);
            assert_charged(line, None, &folder, &kept);
            discard_some(user, line, &mut kept, &tally);
        }
        let mut remaining = actual;
        for session in sessions.iter_mut().filter(|s| s.token == user.token) {
            let own = |path: &String| session.roots.iter().any(|root| is_within(path, root));
            let (own, others) = remaining.into_iter().partition(|(path, _)| own(path));
            remaining = others;
            settle(session, own);
            let kept = kept.iter().filter(|kept| kept.owner == user.name);
            session.learn(kept.map(|kept| (&*kept.id, &*kept.path, kept.size, kept.bytes)));
        }
        // The files of the other users are checked with those users.
        let others = sessions.iter().filter(|s| s.token != user.token);
        let others: Vec<_> = others.map(|session| session.roots[1].clone()).collect();
        remaining.retain(|path, _| !others.iter().any(|root| is_within(path, root)));
        for (dir, registers) in registers {
            if user.name == dir || dir == "team" {
                let prefix = if dir == "team" {
                    "/team/shared"
                } else {
                    "/shared"
                };
                check_registers(registers, prefix, &mut remaining);
            }
        }
        assert!(remaining.is_empty(), "nobody made {remaining:#?}");
    }
    for (dir, registers) in registers {
        let (prefix, tree) = match dir.as_str() {
            "team" => ("/team/shared/", folder.clone()),
            user => ("/shared/", on_disk(&data.join("homes").join(user), "")),
        };
        let tree = tree.into_iter();
        registers.reset(tree.filter(|(path, _)| path.starts_with(prefix)));
    }
}

fn is_within(path: &str, root: &str) -> bool {
    let below = path.strip_prefix(root);
    below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
}

/// Asserts that acknowledged changes are present, and that pending changes are complete or absent.
fn settle(session: &mut ModelSession, found: ModelTree) {
    let mut possible = vec![session.tree.clone()];
    for change in session.unfinished.drain(..) {
        possible = possible
            .iter()
            .flat_map(|tree| change.states(tree))
            .collect();
    }
    if !possible.contains(&found) {
        let differ = |from: &ModelTree, to: &ModelTree| {
            let lines = from
                .iter()
                .filter(|(path, node)| to.get(*path) != Some(*node));
            lines.map(|line| format!("{line:?}")).collect::<Vec<_>>()
        };
        for tree in &possible {
            let (missing, stray) = (differ(tree, &found), differ(&found, tree));
            eprintln!(
                "{:?}: missing {missing:#?}, stray {stray:#?}",
                session.roots
            );
        }
        panic!("what is there is nothing that may be there");
    }
    if found != session.tree {
        count(&session.tally.unfinished_and_done);
    }
    session.tree = found;
}

fn check_registers(registers: &Registers, prefix: &str, remaining: &mut ModelTree) {
    assert_eq!(remaining.remove(prefix), Some(TreeNode::Dir));
    for path in registers.paths() {
        registers.check(&path, remaining.remove(&path).as_ref());
    }
}

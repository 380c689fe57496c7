//! What is there after a restart: on the disk, and as the server shows it.

use std::fs;
use std::path::Path;

use serde_json::json;
use walkdir::WalkDir;

use super::model::{Node, Tree, bytes, files};
use super::register::Registers;
use super::session::{Session, count};
use crate::blocking::Line;

/// A user, with what a checker needs to look at its files.
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) token: String,
}

/// Everything below a directory of the server's disk, under the names that members see.
pub(crate) fn on_disk(root: &Path, prefix: &str) -> Tree {
    let mut tree = Tree::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("readable");
        let inner = entry.path().strip_prefix(root).expect("below");
        let path = format!("{prefix}/{}", inner.to_str().expect("a name of ours"));
        let node = if entry.file_type().is_dir() {
            Node::Dir
        } else {
            assert!(entry.file_type().is_file(), "{path} is no file");
            Node::file(&fs::read(entry.path()).expect("readable"))
        };
        tree.insert(path, node);
    }
    tree
}

/// Everything that a user sees, read to the last byte.
pub(crate) fn through_server(line: &mut Line) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        let mut request = json!({"cmd": "ls", "path": format!("{dir}/"), "limit": 7});
        loop {
            let page = line.ok(&request);
            for entry in page["entries"].as_array().expect("a list") {
                let path = format!("{dir}/{}", entry["name"].as_str().expect("a name"));
                if entry["kind"] == "dir" {
                    dirs.push(path.clone());
                    tree.insert(path, Node::Dir);
                    continue;
                }
                let (content, reply) = line.get(&path).expect("the server lives");
                let node = Node::file(&content);
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

/// Asserts that `df` in `dir` counts exactly what `tree` holds.
fn assert_charged(line: &mut Line, dir: &str, tree: &Tree) {
    line.ok(&json!({"cmd": "cd", "path": dir}));
    let df = line.ok(&json!({"cmd": "df"}));
    let charged = (df["used"].as_u64(), df["files"].as_u64());
    let there = (Some(bytes(tree)), Some(files(tree) as u64));
    assert_eq!(charged, there, "bytes and files in {dir}");
    if let Some(limit) = df["limit"].as_u64() {
        assert!(bytes(tree) <= limit, "{dir} holds more than {limit} bytes");
    }
}

/// Compares what is there with what each session knows, and has them go on from it.
pub(crate) fn check(
    data: &Path,
    address: &str,
    users: &[User],
    sessions: &mut [Session],
    registers: &[(String, std::sync::Arc<Registers>)],
) {
    let left = fs::read_dir(data.join("staging")).expect("staging");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "left in staging: {left:?}");
    let folder = on_disk(&data.join("folders/team"), "/team");
    for user in users {
        let home = on_disk(&data.join("homes").join(user.name), "");
        let mut line = Line::log_in(address, &user.token).expect("the server lives");
        let mut seen = through_server(&mut line);
        assert_eq!(seen.remove("/team"), Some(Node::Dir));
        let mut there = home.clone();
        there.extend(folder.clone());
        assert!(seen == there, "the server and its disk disagree");
        assert_charged(&mut line, "/", &home);
        assert_charged(&mut line, "/team", &folder);
        let mut rest = there;
        for session in sessions.iter_mut().filter(|s| s.token == user.token) {
            let own = |path: &String| session.roots.iter().any(|root| is_within(path, root));
            let (own, others) = rest.into_iter().partition(|(path, _)| own(path));
            rest = others;
            settle(session, own);
        }
        // Those of the other users are looked at with them.
        let others = sessions.iter().filter(|s| s.token != user.token);
        let others: Vec<_> = others.map(|session| session.roots[1].clone()).collect();
        rest.retain(|path, _| !others.iter().any(|root| is_within(path, root)));
        for (dir, registers) in registers {
            if user.name == dir || dir == "team" {
                let prefix = if dir == "team" {
                    "/team/shared"
                } else {
                    "/shared"
                };
                check_registers(registers, prefix, &mut rest);
            }
        }
        assert!(rest.is_empty(), "nobody made {rest:#?}");
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

/// What was acknowledged is exactly so; what was under way is done or not.
fn settle(session: &mut Session, found: Tree) {
    let mut possible = vec![session.tree.clone()];
    for change in session.unfinished.drain(..) {
        possible = possible
            .iter()
            .flat_map(|tree| change.states(tree))
            .collect();
    }
    if !possible.contains(&found) {
        let differ = |from: &Tree, to: &Tree| {
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

fn check_registers(registers: &Registers, prefix: &str, rest: &mut Tree) {
    assert_eq!(rest.remove(prefix), Some(Node::Dir));
    for path in registers.paths() {
        registers.check(&path, rest.remove(&path).as_ref());
    }
}

//! Recursive listings: every entry once, in one order, wherever they begin.

use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use crate::protocol::{Entry, FileMode, Kind};
use crate::storage::tests::*;

/// Longer than the names that a listing holds at a time take together.
const MANY_LONG_NAMES: usize = 4000;

impl TestStore {
    fn tree_after(&self, path: &str, after: Option<&str>) -> Vec<Entry> {
        let listing = self.view.list_tree(&at(path), after, true);
        all(&mut listing.expect("listed"))
    }

    fn tree(&self, path: &str) -> Vec<String> {
        names(self.tree_after(path, None))
    }

    /// Makes a file, and the directories on the way, as an operator does.
    fn make(&self, path: &str) {
        let path = self.on_disk(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, "text").expect("written");
    }
}

fn all(listing: &mut TreeListing) -> Vec<Entry> {
    let mut entries = Vec::new();
    let more = listing.advance(&never, &mut |entry| {
        entries.push(entry);
        true
    });
    assert!(!more.expect("listed"), "nothing has stopped it");
    entries
}

fn names(entries: Vec<Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.name).collect()
}

/// The names that the next `count` entries have.
fn some(listing: &mut TreeListing, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    let more = listing.advance(&never, &mut |entry| {
        found.push(entry.name);
        found.len() < count
    });
    more.expect("listed");
    found
}

#[test]
fn a_directory_comes_before_its_content_and_names_are_sorted_by_bytes() {
    let data = TestStore::new();
    for path in ["a/b/c", "a/b-1", "a.txt", "a/ä", "a/z", "B", "a-b/x"] {
        data.make(path);
    }
    data.mkdir("/empty");
    let expected = [
        "B", "a", "a/b", "a/b/c", "a/b-1", "a/z", "a/ä", "a-b", "a-b/x", "a.txt", "empty",
    ];
    assert_eq!(data.tree("/"), expected);
    assert_eq!(data.tree("/a/b"), ["c"]);
    assert_eq!(data.tree("/empty"), Vec::<String>::new());
    for path in ["/no", "/B"] {
        let listed = data.view.list_tree(&at(path), None, false);
        let error = listed.expect_err("no directory");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn a_listing_goes_on_after_any_path_whether_it_exists_or_not() {
    let data = TestStore::new();
    for path in ["a/b/c", "a/d", "e", "g/h"] {
        data.make(path);
    }
    let whole = data.tree("/");
    for (index, after) in whole.iter().enumerate() {
        let rest = names(data.tree_after("/", Some(after)));
        assert_eq!(rest, whole[index + 1..], "{after}");
    }
    for (after, next) in [
        ("a/a", "a/b"),
        ("a/b/a/x", "a/b/c"),
        ("a/b/c/x", "a/d"),
        ("a/c", "a/d"),
        ("a/e", "e"),
        ("e/x", "g"),
        ("f", "g"),
    ] {
        assert_eq!(data.tree_after("/", Some(after))[0].name, next, "{after}");
    }
    assert!(data.tree_after("/", Some("g/h")).is_empty());
    for after in ["", "/a", "a/", "a//b", "..", "a/../b", "a\n", "."] {
        let listed = data.view.list_tree(&at("/"), Some(after), false);
        assert_fails!(listed, StorageError::BadCursor { .. });
    }
}

#[test]
fn changes_between_two_steps_hide_and_repeat_nothing_else() {
    let data = TestStore::new();
    for path in ["a", "b/1", "b/2", "b/3", "c/1", "d"] {
        data.make(path);
    }
    let mut listing = data.view.list_tree(&at("/"), None, false).expect("listed");
    assert_eq!(some(&mut listing, 3), ["a", "b", "b/1"]);
    data.make("a0");
    data.make("b/1a");
    data.make("b/0");
    fs::remove_file(data.on_disk("b/2")).expect("removed");
    assert_eq!(some(&mut listing, 2), ["b/3", "c"], "the names were read");
    fs::remove_dir_all(data.on_disk("c")).expect("removed");
    assert_eq!(names(all(&mut listing)), ["d"]);
    let mut listing = data.view.list_tree(&at("/b"), None, false).expect("listed");
    fs::rename(data.on_disk("b"), data.on_disk("moved")).expect("moved");
    let gone = listing.advance(&never, &mut |_| true);
    assert_fails!(gone, StorageError::NotFound { .. });
}

#[test]
fn directories_of_more_names_than_a_listing_holds_are_listed_whole() {
    let data = TestStore::new();
    let long = |number: usize| format!("{number:06}{}", "x".repeat(240));
    let mut expected = Vec::new();
    fs::create_dir(data.on_disk("top")).expect("made");
    for number in 0..MANY_LONG_NAMES {
        fs::write(data.on_disk("top").join(long(number)), "").expect("written");
        expected.push(long(number));
        if number == 1 {
            let below = data.on_disk("top").join("000001");
            fs::create_dir(&below).expect("made");
            let names = (0..MANY_LONG_NAMES).map(long);
            let below: Vec<_> = names
                .inspect(|name| fs::write(below.join(name), "").expect("written"))
                .map(|name| format!("000001/{name}"))
                .collect();
            let last = expected.pop().expect("two");
            expected.push("000001".to_owned());
            expected.extend(below);
            expected.push(last);
        }
    }
    let listing = data.view.list_tree(&at("/top"), None, false);
    assert!(names(all(&mut listing.expect("listed"))) == expected);
    let after = Some(&*expected[MANY_LONG_NAMES]);
    let rest = names(data.tree_after("/top", after));
    assert!(rest == expected[MANY_LONG_NAMES + 1..]);
}

#[test]
fn links_are_shown_as_their_targets_and_not_followed() {
    let data = TestStore::new();
    data.make("dir/file");
    symlink("dir", data.on_disk("to-dir")).expect("linked");
    symlink(".", data.on_disk("dir/loop")).expect("linked");
    symlink("dir/file", data.on_disk("to-file")).expect("linked");
    symlink("/etc", data.on_disk("out")).expect("linked");
    symlink("nowhere", data.on_disk("dangling")).expect("linked");
    let entries = data.tree_after("/", None);
    let listed: Vec<_> = entries.iter().map(|it| (&*it.name, it.kind)).collect();
    let expected = [
        ("dir", Kind::Dir),
        ("dir/file", Kind::File),
        ("dir/loop", Kind::Dir),
        ("to-dir", Kind::Dir),
        ("to-file", Kind::File),
    ];
    assert_eq!(listed, expected);
    let rest = names(data.tree_after("/", Some("to-dir/a")));
    assert_eq!(rest, ["to-file"], "a cursor leads through no link");
}

#[test]
fn versions_modes_and_kept_digests_are_listed_and_nothing_is_computed() {
    let data = TestStore::new();
    let committed = data.put("/put", b"text").expect("put");
    data.make("by-hand");
    let update = MetadataUpdate {
        modified: None,
        mode: Some(FileMode::from_st_mode(0o640)),
    };
    data.view.set_metadata(&at("/put"), update).expect("set");
    let listed = data.tree_after("/", None);
    for entry in &listed {
        let info = data.view.stat(&at(&format!("/{}", entry.name)));
        let info = info.expect("there");
        assert_eq!(entry.version, info.version);
        assert_eq!(entry.modified, info.modified);
        assert_eq!(entry.mode, info.mode);
        assert_eq!(entry.size, 4);
    }
    assert_eq!(listed[0].digest, None);
    assert_eq!(listed[1].digest, Some(committed.digest));
    assert_eq!(listed[1].mode, update.mode);
    let mut without = data.view.list_tree(&at("/"), None, false).expect("listed");
    let digests = all(&mut without).into_iter().map(|entry| entry.digest);
    assert!(digests.eq([None, None]));
}

#[test]
fn folders_are_listed_in_the_root_as_far_as_the_member_may() {
    let no_read = Rights {
        read: false,
        ..Rights::READ
    };
    for (rights, expected) in [
        (Rights::READ, &["a", "team", "team/x", "z"][..]),
        (no_read, &["a", "team", "team/x", "z"]),
        (Rights::DROP, &["a", "team", "z"]),
    ] {
        let data = TestStore::new().mount("team", rights, SpaceLimits::default());
        for path in ["a", "z", "team/hidden"] {
            data.make(path);
        }
        fs::write(data.data("folders/team/x"), "text").expect("written");
        assert_eq!(data.tree("/"), expected);
        let rest = names(data.tree_after("/", Some("team")));
        assert_eq!(rest, expected[2..], "after the folder");
        let inside = data.view.list_tree(&at("/team"), None, true);
        assert_eq!(inside.is_ok(), rights.list);
    }
}

#[test]
fn a_listing_ends_with_the_right_to_list_and_when_it_is_told_to() {
    let data = TestStore::new().mount("team", Rights::READ, SpaceLimits::default());
    for name in ["x", "y"] {
        fs::write(data.data("folders/team").join(name), "").expect("written");
    }
    let mut listing = data.view.list_tree(&at("/"), None, true).expect("listed");
    assert_eq!(some(&mut listing, 2), ["team", "team/x"]);
    let stopped = listing.advance(&|| true, &mut |_| true);
    assert_fails!(stopped, StorageError::Cancelled { .. });
    data.view.set(Arc::clone(&data.home), Vec::new());
    let denied = listing.advance(&never, &mut |_| true);
    assert_fails!(denied, StorageError::Denied { .. });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_is_listed_in_order_and_goes_on_from_any_entry(
        paths in prop::collection::btree_set("[ab!-]{1,2}(/[ab!]{1,2}){0,3}", 1..20),
        steps in prop::collection::vec(1..5_usize, 1..4),
    ) {
        let data = TestStore::new();
        for path in &paths {
            let path = data.on_disk(path);
            // A name may stand for a file and for a directory; the first one stays.
            if fs::create_dir_all(path.parent().expect("a parent")).is_ok() && !path.exists() {
                let _ = fs::write(path, "");
            }
        }
        let walked = walkdir::WalkDir::new(data.on_disk("")).min_depth(1);
        let mut expected: Vec<String> = walked
            .into_iter()
            .map(|entry| {
                let entry = entry.expect("readable");
                let path = entry.path().strip_prefix(data.on_disk("")).expect("below");
                path.to_str().expect("text").to_owned()
            })
            .collect();
        expected.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        prop_assert_eq!(&data.tree("/"), &expected);
        let (mut listed, mut step) = (Vec::new(), steps.iter().cycle());
        loop {
            let after = listed.last().cloned();
            let mut listing = data.view.list_tree(&at("/"), after.as_deref(), false).expect("listed");
            let next = some(&mut listing, *step.next().expect("a cycle"));
            if next.is_empty() {
                break;
            }
            listed.extend(next);
        }
        prop_assert_eq!(listed, expected);
    }
}

//! Listings: complete, in pages, and free of what no member should see.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::protocol::Kind;
use crate::storage::tests::*;

/// Every name of a directory, gathered page by page; each page within its bounds.
fn pages(data: &TestStore, path: &str, limit: usize, budget: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = data.view.list(&at(path), cursor.as_deref(), limit, budget);
        let page = page.expect("a page");
        let json = serde_json::to_string(&page.entries).expect("entries are JSON");
        assert!(page.entries.len() <= limit);
        assert!(page.entries.len() == 1 || json.len() <= budget);
        assert!(page.entries.is_sorted_by(|a, b| a.name < b.name));
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        cursor = page.cursor;
        if cursor.is_none() {
            return names;
        }
    }
}

#[test]
fn twenty_thousand_entries_come_in_pages_each_once() {
    let data = TestStore::new();
    data.mkdir("/many");
    let expected: BTreeSet<_> = (0..20_000).map(|n| format!("entry-{n:05}")).collect();
    for name in &expected {
        std::fs::write(data.on_disk("many").join(name), b"").expect("written");
    }
    for (limit, budget) in [(1000, usize::MAX), (usize::MAX, 60_000), (777, 60_000)] {
        let names = pages(&data, "/many", limit, budget);
        assert_eq!(names.len(), expected.len());
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn entries_that_stay_are_listed_once_while_others_come_and_go() {
    let data = TestStore::new();
    for n in 0..300 {
        std::fs::write(data.on_disk(&format!("stays-{n}")), b"").expect("written");
        std::fs::write(data.on_disk(&format!("goes-{n}")), b"").expect("written");
    }
    let (mut names, mut cursor, mut round) = (Vec::new(), None::<String>, 0);
    loop {
        let page = data.view.list(&at("/"), cursor.as_deref(), 20, usize::MAX);
        let page = page.expect("a page");
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        let _ = std::fs::remove_file(data.on_disk(&format!("goes-{round}")));
        std::fs::write(data.on_disk(&format!("comes-{round}")), b"").expect("written");
        round += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    names.retain(|name| name.starts_with("stays"));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!((names.len(), count), (300, 300));
}

#[test]
fn a_last_page_says_that_it_is_the_last() {
    let data = TestStore::new();
    for name in ["a", "b", "c", "d"] {
        data.put(&format!("/{name}"), b"x").expect("put");
    }
    let page = |cursor: Option<&str>| data.view.list(&at("/"), cursor, 2, usize::MAX);
    let first = page(None).expect("a page");
    let second = page(first.cursor.as_deref()).expect("a page");
    assert_eq!((first.entries.len(), second.entries.len()), (2, 2));
    assert_eq!(second.cursor, None);
    data.mkdir("/empty");
    let empty = data.view.list(&at("/empty"), None, 2, 0).expect("a page");
    assert!(empty.entries.is_empty() && empty.cursor.is_none());
}

#[test]
fn garbage_for_a_cursor_is_an_error() {
    let data = TestStore::new();
    data.put("/a", b"x").expect("put");
    for cursor in [
        "",
        ":",
        "e:",
        "e:+1",
        "e:-1",
        "e:xyz",
        "e:ffffffffffffffff",
        "e:10000000000000000",
        "m:",
        "m:a/b",
        "m:\n",
        "x:1",
        "🦀",
    ] {
        assert_fails!(
            data.view.list(&at("/"), Some(cursor), 10, usize::MAX),
            StorageError::BadCursor { .. }
        );
    }
    for cursor in ["e:1", "e:7fffffffffffffff", "e:deadbeef", "m:zzz"] {
        // Nowhere in particular, but nothing worse.
        let _ = data.view.list(&at("/"), Some(cursor), 10, usize::MAX);
    }
}

#[test]
fn a_listing_omits_invalid_names_and_special_files() {
    let data = TestStore::new();
    data.put("/plain", b"abc").expect("put");
    data.mkdir("/dir");
    for name in [
        &b"new\nline"[..],
        b"esc\x1b[2J",
        b"\xff\xfe",
        "bidi\u{202e}".as_bytes(),
    ] {
        let name = std::ffi::OsStr::from_bytes(name);
        std::fs::write(data.on_disk("").join(name), b"x").expect("written");
    }
    symlink("nowhere", data.on_disk("dangling")).expect("linked");
    symlink("/etc", data.on_disk("out")).expect("linked");
    symlink("../../..", data.on_disk("up")).expect("linked");
    symlink("loop", data.on_disk("loop")).expect("linked");
    symlink("plain", data.on_disk("inside")).expect("linked");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        data.on_disk("fifo"),
        rustix::fs::Mode::RWXU,
    )
    .expect("made");
    let page = data
        .view
        .list(&at("/"), None, 100, usize::MAX)
        .expect("all");
    let seen: Vec<_> = page
        .entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.kind, entry.size))
        .collect();
    assert_eq!(
        seen,
        [
            ("dir", Kind::Dir, 0),
            ("inside", Kind::File, 3),
            ("plain", Kind::File, 3)
        ]
    );
}

#[test]
fn mounts_come_first_hide_what_has_their_name_and_are_paged_too() {
    let mut data = TestStore::new();
    data.mkdir("/folder-3");
    data.put("/folder-3/hidden", b"x").expect("put");
    for n in 0..5 {
        data.put(&format!("/file-{n}"), b"x").expect("put");
    }
    let mounts = (0..7).map(|n| Mount {
        name: format!("folder-{n}"),
        space: data
            .store
            .folder(&format!("folder-{n}"), SpaceLimits::default())
            .expect("a folder"),
        rights: Rights::ALL,
    });
    data.view = View::new(&data.store, Arc::clone(&data.home), mounts.collect());
    for limit in [1, 2, 7, 8, 100] {
        let names = pages(&data, "/", limit, usize::MAX);
        assert_eq!(names.len(), 12, "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 12);
        assert!(
            ![1, 7].contains(&limit) || names[..7].iter().all(|name| name.starts_with("folder"))
        );
    }
    assert!(data.names("/folder-3").is_empty());
    assert_fails!(data.get("/folder-3/hidden"), StorageError::NotFound { .. });
}

#[test]
fn a_directory_that_was_removed_is_not_listed_any_more() {
    let data = TestStore::new();
    data.mkdir("/here");
    data.view.enter(&at("/here")).expect("there");
    data.remove("/here").expect("removed");
    assert_fails!(data.view.enter(&at("/here")), StorageError::NotFound { .. });
    assert_fails!(
        data.view.list(&at("/here"), None, 10, usize::MAX),
        StorageError::NotFound { .. }
    );
}

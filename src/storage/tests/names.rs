//! Names: directories made, things moved and removed, always whole.

use crate::storage::tests::*;

#[test]
fn directories_are_made_one_by_one_or_with_their_parents() {
    let data = TestStore::new();
    let make = |path, parents| data.view.make_dir(&at(path), parents, None);
    make("/a/", false).expect("made");
    assert_fails!(make("/a", false), StorageError::Exists { .. });
    make("/a", true).expect("there already");
    assert_fails!(make("/b/c", false), StorageError::NotFound { .. });
    make("/b/c/d", true).expect("made");
    data.view.enter(&at("/b/c/d")).expect("there");
    data.put("/file", b"x").expect("put");
    assert_fails!(make("/file", false), StorageError::Exists { .. });
    assert_fails!(make("/file", true), StorageError::NotADirectory { .. });
    assert_fails!(make("/file/x", true), StorageError::NotADirectory { .. });
    assert_fails!(make("/", false), StorageError::Exists { .. });
    make("/", true).expect("always there");
}

#[test]
fn a_directory_goes_only_when_it_is_empty_or_with_all_it_holds() {
    let data = TestStore::new();
    data.mkdir("/a/b/c");
    data.put("/a/b/x", b"12345").expect("put");
    let remove = |path, recursive| data.view.remove(&at(path), recursive, &never);
    assert_fails!(remove("/a", false), StorageError::NotEmpty { .. });
    assert_eq!(remove("/a/b/c", false).expect("empty").entries, 1);
    assert_fails!(remove("/a/b/x/", true), StorageError::InvalidPath(_));
    assert_eq!(data.used("/"), (5, 3));
    assert_eq!(remove("/a", true).expect("removed").entries, 3);
    assert_fails!(remove("/a", true), StorageError::NotFound { .. });
    assert_fails!(remove("/", true), StorageError::Denied { .. });
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_removal_that_is_cancelled_in_time_removes_nothing() {
    let data = TestStore::new();
    data.put("/a", b"x").expect("put");
    assert_fails!(
        data.view.remove(&at("/a"), true, &|| true),
        StorageError::Cancelled { .. }
    );
    assert_eq!(data.names("/"), ["a"]);
}

#[test]
fn a_file_moves_by_the_rule_for_what_is_there() {
    let data = TestStore::new();
    data.put("/a", b"a").expect("put");
    data.put("/b", b"bb").expect("put");
    data.mkdir("/dir");
    assert_fails!(
        data.mv("/a", "/b", IfExists::Fail),
        StorageError::Exists { .. }
    );
    assert_eq!(
        data.mv("/a", "/b", IfExists::Rename).expect("moved"),
        "/b (1)"
    );
    assert_eq!(
        data.mv("/b (1)", "/b", IfExists::Replace).expect("moved"),
        "/b"
    );
    assert_eq!(data.get("/b").expect("there"), b"a");
    assert_fails!(
        data.mv("/b", "/dir", IfExists::Replace),
        StorageError::IsADirectory { .. }
    );
    assert_fails!(
        data.mv("/dir", "/b", IfExists::Replace),
        StorageError::NotADirectory { .. }
    );
    assert_fails!(
        data.mv("/b", "/no/b", IfExists::Fail),
        StorageError::NotFound { .. }
    );
    assert_fails!(
        data.mv("/no", "/b", IfExists::Fail),
        StorageError::NotFound { .. }
    );
    assert_fails!(
        data.mv("/b", "/c/", IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    assert_fails!(
        data.mv("/", "/c", IfExists::Fail),
        StorageError::Denied { .. }
    );
    assert_eq!(
        data.mv("/b", "/dir/b", IfExists::Fail).expect("moved"),
        "/dir/b"
    );
    assert_eq!(data.mv("/dir", "/e/", IfExists::Fail).expect("moved"), "/e");
    assert_eq!(data.get("/e/b").expect("there"), b"a");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn nothing_moves_or_is_copied_into_itself() {
    let data = TestStore::new();
    data.mkdir("/a/b");
    for to in ["/a/b/c", "/a/x"] {
        assert_fails!(
            data.mv("/a", to, IfExists::Replace),
            StorageError::InvalidPath(_)
        );
        assert_fails!(
            data.cp("/a", to, IfExists::Replace),
            StorageError::InvalidPath(_)
        );
    }
    assert_eq!(data.names("/a"), ["b"]);
}

#[test]
fn moving_a_file_below_itself_is_not_a_directory() {
    let data = TestStore::new();
    data.put("/file", b"x").expect("put");
    assert_fails!(
        data.mv("/file", "/file/x", IfExists::Fail),
        StorageError::NotADirectory { .. }
    );
    assert_fails!(
        data.mv("/none", "/none/x", IfExists::Fail),
        StorageError::NotFound { .. }
    );
}

#[test]
fn moving_something_onto_itself_changes_nothing() {
    let data = TestStore::new();
    data.put("/a", b"abc").expect("put");
    data.mkdir("/dir");
    assert_eq!(data.mv("/a", "/a", IfExists::Replace).expect("there"), "/a");
    assert_eq!(
        data.mv("/dir", "/dir", IfExists::Replace).expect("there"),
        "/dir"
    );
    assert_fails!(
        data.mv("/a", "/a", IfExists::Fail),
        StorageError::Exists { .. }
    );
    assert_eq!(data.get("/a").expect("there"), b"abc");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn of_two_hard_links_the_moved_one_goes() {
    let data = TestStore::new();
    data.put("/a", b"abc").expect("put");
    std::fs::hard_link(data.on_disk("a"), data.on_disk("b")).expect("linked");
    assert_eq!(data.used("/"), (6, 2));
    data.mv("/a", "/b", IfExists::Replace).expect("moved");
    assert_eq!(data.names("/"), ["b"]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_tree_does_not_move_to_where_it_could_not_be_named() {
    let data = TestStore::new();
    let deep = "/d".repeat(40);
    data.mkdir(&format!("{deep}/bottom"));
    data.mkdir(&format!("/e{deep}"));
    assert_fails!(
        data.mv("/d", &format!("/e{deep}/d"), IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    let long = format!("/{}", "x".repeat(250));
    let other = format!("/{}", "y".repeat(250));
    data.mkdir(&long.repeat(16));
    data.mkdir(&other);
    assert_fails!(
        data.mv(&long, &format!("{other}{long}"), IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    data.mv("/d", "/c", IfExists::Fail).expect("no deeper");
    data.mv("/c", "/longer", IfExists::Fail)
        .expect("not too deep");
    data.view
        .enter(&at(&format!("/longer{}/bottom", "/d".repeat(39))))
        .expect("all of it");
}

#[test]
fn a_removed_account_leaves_nothing_to_the_next_of_its_name() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    let root = data.data("");
    assert!(set_home_aside(&root, "alice").expect("moved"));
    assert!(!set_home_aside(&root, "alice").expect("gone already"));
    assert!(!set_folder_aside(&root, "none").expect("never was"));
    assert_fails!(set_home_aside(&root, ".."), StorageError::InvalidPath(_));
    let home = data
        .store
        .home("alice", SpaceLimits::default())
        .expect("anew");
    let view = View::new(&data.store, home, Vec::new());
    let page = view.list(&at("/"), None, 10, usize::MAX).expect("empty");
    assert!(page.entries.is_empty());
    let aside: Vec<_> = std::fs::read_dir(data.data("removed"))
        .expect("made")
        .flatten()
        .collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].path().join("a").exists());
}

#[test]
fn a_name_that_leads_elsewhere_is_no_home() {
    let data = TestStore::new();
    for name in ["../x", "..", ".", "", "a/b", "/", "a/", "x\0", "x\n"] {
        assert_fails!(
            data.store.home(name, SpaceLimits::default()),
            StorageError::InvalidPath(_)
        );
        assert_fails!(
            data.store.folder(name, SpaceLimits::default()),
            StorageError::InvalidPath(_)
        );
    }
    let again = data
        .store
        .home("alice", SpaceLimits::default())
        .expect("there");
    assert!(Arc::ptr_eq(&again, &data.home));
}

//! Walks over trees that are deep, that change meanwhile, or that cannot be deleted.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;
use rustix::io::Errno;

use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;
use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::space_walk::{SpaceWalk, TreeMeasurement};
use crate::storage::tests::disks::on_a_small_disk;
use crate::storage::tests::quota_model::{Step, steps, take};
use crate::storage::tests::*;

/// Makes so many directories, each in the one before, and a file of 7 bytes in the last.
fn make_deep(top: &Path, levels: usize) {
    let mut dir = OpenDir::open_ambient(top).expect("there");
    for _ in 0..levels {
        dir.make_dir("d").expect("made");
        dir = dir.open_dir("d").expect("there");
    }
    let mut file = dir.create_file("file").expect("made");
    io::Write::write_all(&mut file, b"content").expect("written");
}

/// What a fresh walk finds.
fn on_disk(root: &Path) -> SpaceCount {
    let mut count = SpaceCount::default();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("readable");
        count += if entry.file_type().is_file() {
            SpaceCount::file(entry.metadata().expect("there").len())
        } else {
            SpaceCount::entries(1)
        };
    }
    count
}

fn counted(data: &TestStore, tallied: &mut SpaceWalk) -> io::Result<SpaceCount> {
    loop {
        while !tallied.advance(&data.home, &mut 1000)? {}
        if let Some((count, _)) = tallied.result(&data.home.lock_names())? {
            return Ok(count);
        }
    }
}

#[test]
fn a_tree_of_any_depth_is_counted_and_removed_and_moves_no_deeper() {
    const LEVELS: usize = 5000;
    let data = TestStore::with_limits(SpaceLimits {
        bytes: Some(100),
        files: Some(LEVELS as u64 + 3),
    });
    make_deep(&data.on_disk("."), LEVELS);
    assert_eq!(data.used("/"), (7, LEVELS as u64 + 1));
    data.put("/d/d/file", b"x").expect("put");
    data.mv("/d", "/e", IfExists::Fail).expect("no deeper");
    data.mkdir("/dir");
    assert_fails!(
        data.mv("/e", "/dir/e", IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    let removed = data.remove("/e").expect("removed");
    assert_eq!(removed, LEVELS as u64 + 2);
    data.remove("/dir").expect("removed");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_tree_that_is_too_deep_to_be_named_is_not_copied_in_part() {
    let data = TestStore::new();
    make_deep(&data.on_disk("."), 70);
    assert_fails!(
        data.cp("/d", "/e", IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    assert!(!data.on_disk("e").exists());
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_start_leaves_what_is_to_be_deleted_until_after_it() {
    let data = TestStore::new();
    make_deep(&data.data("staging"), 3000);
    fs::write(data.data("staging/leftover"), b"x").expect("written");
    let dir = data.dir.path().join("data");
    let temporary = data.dir;
    drop((data.store, data.home, data.view));
    let store = Store::open(&dir).expect("a store");
    let staged = || fs::read_dir(dir.join("staging")).expect("staging").count();
    assert_eq!((store.leftover_count(), staged()), (2, 2));
    while store.leftover_count() > 0 {
        let _ = store.delete_leftover();
    }
    assert_eq!(staged(), 0);
    drop(temporary);
}

#[test]
fn each_turn_of_a_deletion_is_bounded_and_all_of_them_delete_all() {
    let data = TestStore::new();
    let top = data.on_disk(".");
    make_deep(&top, 50);
    for number in 0..100 {
        fs::write(top.join(format!("d/d/{number}")), b"x").expect("written");
    }
    let dir = OpenDir::open_ambient(&top).expect("there");
    let (mut turns, mut entries, mut freed) = (0, 0, SpaceCount::default());
    loop {
        let mut budget = 60;
        let deleted = tree::delete_within(&dir, c"d", &mut budget);
        turns += 1;
        entries += deleted.entries;
        freed += deleted.freed;
        assert!(deleted.entries <= 60 && deleted.failed.is_none());
        if !deleted.is_cut_short {
            break;
        }
        assert!(turns < 100);
    }
    assert!(turns > 2, "{turns}");
    let all = SpaceCount {
        bytes: 107,
        entries: 151,
    };
    assert_eq!((entries, freed), (151, all));
    assert!(data.names("/").is_empty());
}

#[test]
fn an_entry_that_cannot_be_deleted_is_reported_and_tried_again() {
    on_a_small_disk(
        "storage::tests::walks::something_is_mounted_far_down",
        "size=8m",
    );
}

#[test]
#[ignore = "wants to mount something: run by the test above"]
fn something_is_mounted_far_down() {
    let data = TestStore::with_bytes(100);
    let deep = format!("/top{}", "/d".repeat(40));
    data.mkdir(&deep);
    data.put(&format!("{deep}/file"), b"content").expect("put");
    data.mkdir(&format!("{deep}/mounted"));
    data.put("/other", b"x").expect("put");
    let mounted = data.on_disk(&format!("{deep}/mounted")[1..]);
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&mounted)
        .status();
    assert!(done.expect("mount runs").success());
    let removed = data.view.remove(&at("/top"), true, &never);
    let removed = removed.expect("out of sight");
    // The file went; the mounted directory stays, and the 41 above it.
    assert_eq!((removed.entries, removed.left), (1, 42));
    assert_eq!(data.names("/"), ["other"]);
    assert_eq!(data.used("/"), (1, 1));
    assert_eq!(data.store.leftover_count(), 1);
    assert!(
        !data.store.delete_leftover(),
        "there is nothing to go on with"
    );
    assert_eq!((data.store.leftover_count(), data.staged()), (1, 1));
    let done = Command::new("umount").arg("-A").arg("none").status();
    assert!(done.is_ok());
    let unmounted = walkdir::WalkDir::new(data.data("staging"));
    for entry in unmounted.into_iter().flatten() {
        if entry.file_name() == "mounted" {
            let _ = Command::new("umount").arg(entry.path()).status();
        }
    }
    let _ = data.store.delete_leftover();
    assert_eq!((data.store.leftover_count(), data.staged()), (0, 0));
    assert_eq!(data.used("/"), (1, 1));
}

#[test]
fn a_tree_is_measured_as_it_is_when_it_moves() {
    let data = TestStore::new();
    data.mkdir("/tree/a");
    let top = data.home.sandbox.open_dir(&at("/tree")).expect("there");
    let mut measure = TreeMeasurement::measure(&data.home, &top).expect("measured");
    // Behind the walk, and where it has not been.
    data.mkdir("/tree/a/b/c");
    data.put("/tree/a/b/c/file", b"content").expect("put");
    data.put("/tree/file", b"x").expect("put");
    let locked = measure.lock(|| data.home.lock_names(), |names| names);
    let (names, count, reach) = locked.expect("measured");
    drop(names);
    let all = SpaceCount {
        bytes: 8,
        entries: 5,
    };
    assert_eq!((count, reach.levels), (all, 4));
    assert_eq!(reach.bytes, "/a/b/c/file".len());
    data.mv("/tree/a", "/gone", IfExists::Fail).expect("moved");
    let locked = measure.lock(|| data.home.lock_names(), |names| names);
    assert!(locked.is_err(), "a part of it has moved away");
}

#[test]
fn moves_that_race_make_no_tree_too_deep() {
    let data = TestStore::new();
    for number in 0..8 {
        data.mkdir(&format!("/{number}{}", "/d".repeat(20)));
    }
    thread::scope(|scope| {
        for number in 0..8 {
            let data = &data;
            scope.spawn(move || {
                for other in 0..8 {
                    let to = format!("/{other}{}/{number}", "/d".repeat(20));
                    let _ = data.mv(&format!("/{number}"), &to, IfExists::Fail);
                }
            });
        }
    });
    let depths = walkdir::WalkDir::new(data.on_disk("."));
    let deepest = depths
        .into_iter()
        .map(|entry| entry.expect("there").depth());
    assert!(deepest.max() <= Some(64));
}

#[test]
fn a_name_with_a_number_leaves_room_for_what_is_below_it() {
    let data = TestStore::new();
    let long = format!("/{}", "x".repeat(250));
    data.mkdir(&format!("/old{}/{}", long.repeat(16), "y".repeat(73)));
    data.mkdir("/new");
    assert_fails!(
        data.mv("/old", "/new", IfExists::Rename),
        StorageError::InvalidPath(_)
    );
    assert_fails!(
        data.cp("/old", "/new", IfExists::Rename),
        StorageError::InvalidPath(_)
    );
    assert_eq!(data.names("/"), ["new", "old"]);
}

#[test]
fn while_a_space_is_counted_only_trees_wait_to_move_or_go() {
    let data = TestStore::new();
    data.store.count_in_background();
    data.mkdir("/tree/sub");
    data.mkdir("/empty");
    data.put("/tree/file", b"content").expect("put");
    let (_end, end) = CountEnd::channel();
    data.home.set_counting(Some(end));
    data.view.stat(&at("/tree")).expect("there");
    assert_eq!(data.names("/tree"), ["file", "sub"]);
    assert_eq!(data.get("/tree/file").expect("there"), b"content");
    data.put("/tree/other", b"x").expect("put");
    data.mkdir("/tree/new/deep");
    data.mv("/tree/other", "/moved", IfExists::Fail)
        .expect("a file moves");
    data.remove("/moved").expect("a file goes");
    data.cp("/tree", "/copy", IfExists::Fail).expect("copied");
    data.view
        .remove(&at("/empty"), false, &never)
        .expect("empty");
    assert_fails!(data.remove("/tree"), StorageError::Counting { .. });
    assert_fails!(
        data.mv("/tree", "/other", IfExists::Fail),
        StorageError::Counting { .. }
    );
    assert_fails!(data.view.usage(&at("/")), StorageError::Counting { .. });
    data.home.set_counting(None);
    data.remove("/tree").expect("removed");
}

#[test]
fn directories_that_are_made_while_a_space_is_counted_need_no_walk() {
    let data = TestStore::new();
    fill(&data);
    let mut tallied = SpaceWalk::begin_space(&data.home.lock_names()).expect("begun");
    while !tallied.advance(&data.home, &mut 1000).expect("goes on") {}
    data.mkdir("/new/deep/er");
    data.put("/new/deep/file", b"content").expect("put");
    let found = tallied
        .result(&data.home.lock_names())
        .expect("exact still");
    let found = found.map(|(count, _)| count);
    assert_eq!(found, Some(on_disk(&data.on_disk("."))));
}

#[tokio::test]
async fn an_operation_that_needs_a_count_gets_its_end_to_wait_for() {
    let data = TestStore::with_bytes(100);
    fs::write(data.on_disk("old"), [0; 7]).expect("written");
    data.store.count_in_background();
    loop {
        match data.put("/new", b"content") {
            Err(StorageError::Counting { end, path }) => end.wait(&path).await.expect("counted"),
            put => break drop(put.expect("room")),
        }
    }
    data.assert_exact("/", "homes/alice");
}

/// Has one thread make a directory and another put a file into it while the disk is asked to keep
/// the directory's name, which it then `keeps` or not. What each of them was told.
fn make_and_put(
    data: &TestStore,
    keeps: bool,
) -> (Result<(), StorageError>, Result<(), StorageError>) {
    let (asked, is_asked) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    data.home.staging.sync_hook.then(move || {
        asked.send(()).expect("heard");
        may_go_on.recv().expect("told");
        if keeps { Ok(()) } else { Err(Errno::IO.into()) }
    });
    thread::scope(|scope| {
        let making = scope.spawn(|| data.view.make_dir(&at("/new"), false, None));
        is_asked.recv().expect("it is asked");
        let putting = scope.spawn(|| data.put("/new/file", b"content").map(drop));
        while !data.on_disk("new/file").exists() {
            thread::yield_now();
        }
        assert!(!putting.is_finished(), "its directory may not last");
        go_on.send(()).expect("it waits");
        let made = making.join().expect("no panic");
        (made, putting.join().expect("no panic"))
    })
}

#[test]
fn a_put_into_a_new_directory_waits_until_that_lasts() {
    let data = TestStore::new();
    let (made, put) = make_and_put(&data, true);
    made.expect("made");
    put.expect("put");
    data.put("/new/other", b"x").expect("put");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn nothing_is_acknowledged_in_a_directory_whose_name_the_disk_does_not_keep() {
    let data = TestStore::new();
    let (made, put) = make_and_put(&data, false);
    assert_fails!(made, StorageError::Io { .. });
    assert_fails!(put, StorageError::Io { .. });
    assert!(!data.on_disk("new/file").exists());
    // Somebody else's file may have kept it from being taken back.
    let _ = data.view.remove(&at("/new"), true, &never);
    data.mkdir("/new");
    data.put("/new/file", b"content")
        .expect("another directory");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_directory_that_the_disk_does_not_keep_is_taken_back_and_its_entry_is_free() {
    let data = TestStore::with_limits(SpaceLimits {
        bytes: None,
        files: Some(2),
    });
    for path in ["/a/b", "/a"] {
        data.home.staging.sync_hook.then(|| Err(Errno::IO.into()));
        let made = data.view.make_dir(&at(path), path != "/a", None);
        assert_fails!(made, StorageError::Io { .. });
        assert!(data.names("/").is_empty());
        data.assert_exact("/", "homes/alice");
    }
    data.mkdir("/a/b");
    data.assert_exact("/", "homes/alice");
}

/// A change that a count goes on beside, and how far it goes before that.
fn changes() -> impl Strategy<Value = Vec<(u64, bool, Step)>> {
    let change = (0..4_u64, prop::bool::weighted(0.2), steps());
    let change = change.prop_map(|(budget, fails, steps)| {
        let step = steps.into_iter().next().expect("one at least");
        (budget, fails, step)
    });
    prop::collection::vec(change, 1..60)
}

fn fill(data: &TestStore) {
    for path in ["/dir/sub", "/dir/other/deep", "/x/y/z"] {
        data.mkdir(path);
    }
    for (number, path) in ["/a", "/dir/a", "/dir/sub/b", "/x/y/z/c"]
        .iter()
        .enumerate()
    {
        data.put(path, &vec![1; number + 1]).expect("put");
    }
}

/// Whether a step moves or removes a directory.
fn moves_tree(data: &TestStore, step: &Step) -> bool {
    let is_dir = |path: &str| data.on_disk(&path[1..]).is_dir();
    match step.source() {
        Some(path) => is_dir(path),
        None => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Nobody waits for the walk, and it finds what is there when it ends.
    #[test]
    fn a_count_is_exact_whatever_changes_meanwhile(changes in changes()) {
        let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
        fill(&data);
        let mut tallied = SpaceWalk::begin_space(&data.home.lock_names()).expect("begun");
        for (mut budget, fails, step) in changes {
            tallied.advance(&data.home, &mut budget).expect("goes on");
            // These wait for a count.
            if moves_tree(&data, &step) {
                continue;
            }
            if fails {
                data.home.staging.sync_hook.then(|| Err(Errno::IO.into()));
            }
            let _ = take(&data, &step);
            data.home.staging.sync_hook.clear();
        }
        let found = counted(&data, &mut tallied).expect("counted");
        prop_assert_eq!(found, on_disk(&data.on_disk(".")));
    }

    /// The ledger agrees with a walk after syncs that fail, in both spaces.
    #[test]
    fn the_ledger_is_exact_after_syncs_that_fail(changes in changes()) {
        let limits = SpaceLimits { bytes: Some(1000), files: Some(100) };
        let data = TestStore::with_limits(limits).mount("team", Rights::ALL, limits);
        fill(&data);
        for (works, fails, step) in changes {
            if fails {
                for _ in 0..works {
                    data.home.staging.sync_hook.then(|| Ok(()));
                }
                data.home.staging.sync_hook.then(|| Err(Errno::IO.into()));
            }
            let _ = take(&data, &step);
            data.home.staging.sync_hook.clear();
            for (path, root) in [("/", "homes/alice"), ("/team", "folders/team")] {
                let SpaceCount { bytes, entries } = on_disk(&data.data(root));
                prop_assert_eq!(data.used(path), (bytes, entries), "{:?}", step);
            }
        }
    }

    /// A count in the background, trees that move, and all else at once.
    #[test]
    fn the_ledger_is_exact_after_a_count_beside_many_who_work(
        workers in prop::collection::vec(steps(), 3)
    ) {
        let limits = SpaceLimits { bytes: Some(1000), files: Some(100) };
        let data = TestStore::new().mount("team", Rights::ALL, limits);
        fill(&data);
        data.store.home("alice", limits).expect("the same home");
        thread::scope(|scope| {
            for steps in &workers {
                let data = &data;
                scope.spawn(move || steps.iter().for_each(|step| drop(take(data, step))));
            }
            scope.spawn(|| data.used("/"));
        });
        data.assert_exact("/", "homes/alice");
        data.assert_exact("/team", "folders/team");
    }
}

#[test]
fn a_deep_leftover_is_deleted_by_its_name() {
    let data = TestStore::new();
    make_deep(&data.data("staging"), 300);
    let staging = OpenDir::open_ambient(&data.data("staging")).expect("there");
    let name = CString::new("d").expect("a name");
    let all = SpaceCount {
        bytes: 7,
        entries: 301,
    };
    assert_eq!(tree::count(&staging, &name).expect("counted"), all);
    let deleted = tree::delete(&staging, &name);
    assert_eq!((deleted.entries, deleted.left), (301, 0));
    assert_eq!(data.staged(), 0);
}

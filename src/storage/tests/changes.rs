//! The changes that storage reports: all of them, once they last, in order, and nothing else.

use std::io;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use rustix::io::Errno;

use crate::protocol::ChangeKind;
use crate::storage::tests::*;

/// The reported changes, in short.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<FileChange>>>);

impl Told {
    fn of(store: &Store) -> Self {
        let told = Self::default();
        let sink = told.clone();
        let first = store.observe(move |change| sink.0.lock().expect("no panic").push(change));
        assert!(first, "nobody else observes");
        told
    }

    fn take(&self) -> Vec<FileChange> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    /// As `kind space/path`, or `kind space/path < space/path` if it was moved.
    fn lines(&self) -> Vec<String> {
        self.take().iter().map(line).collect()
    }
}

fn line(change: &FileChange) -> String {
    let place = |space: &str, path: &VirtualPath| {
        let name = space.split('/').nth(1).expect("an area and a name");
        format!("{name}{path}")
    };
    let here = place(&change.space, &change.path);
    let kind = format!("{:?}", change.kind).to_lowercase();
    match &change.from {
        None => format!("{kind} {here}"),
        Some((space, path)) => format!("{kind} {here} < {}", place(space, path)),
    }
}

fn fails() -> io::Result<()> {
    Err(Errno::IO.into())
}

#[expect(clippy::unnecessary_wraps, reason = "one of the outcomes of a sync")]
fn works() -> io::Result<()> {
    Ok(())
}

#[test]
fn every_way_to_change_a_name_is_told_once() {
    let data = TestStore::new();
    let told = Told::of(&data.store);
    data.put("/a", b"a").expect("put");
    assert_eq!(told.lines(), ["written alice/a"]);
    data.put("/a", b"another").expect("put");
    assert_eq!(told.lines(), ["written alice/a"]);
    data.view.make_dir(&at("/dir"), false, None).expect("made");
    assert_eq!(told.lines(), ["made alice/dir"]);
    data.cp("/a", "/dir/b", IfExists::Fail).expect("copied");
    assert_eq!(told.lines(), ["written alice/dir/b"]);
    data.cp("/dir", "/tree", IfExists::Fail).expect("copied");
    assert_eq!(told.lines(), ["made alice/tree"]);
    data.mv("/a", "/c", IfExists::Fail).expect("moved");
    assert_eq!(told.lines(), ["moved alice/c < alice/a"]);
    data.mv("/tree", "/dir/tree", IfExists::Fail)
        .expect("moved");
    assert_eq!(told.lines(), ["moved alice/dir/tree < alice/tree"]);
    data.view.remove(&at("/c"), false, &never).expect("gone");
    assert_eq!(told.lines(), ["removed alice/c"]);
    data.remove("/dir").expect("gone");
    assert_eq!(told.lines(), ["removed alice/dir"]);
    data.mkdir("/empty");
    data.view
        .remove(&at("/empty"), false, &never)
        .expect("gone");
    assert_eq!(told.lines(), ["made alice/empty", "removed alice/empty"]);
}

#[test]
fn directories_made_on_the_way_are_told_one_by_one_from_the_outside_in() {
    let data = TestStore::new();
    let told = Told::of(&data.store);
    data.mkdir("/a/b/c");
    let made = ["made alice/a", "made alice/a/b", "made alice/a/b/c"];
    assert_eq!(told.lines(), made);
    data.mkdir("/a/b/c");
    data.mkdir("/");
    assert!(told.lines().is_empty(), "they were there");
    let options = UploadOptions {
        parents: true,
        ..sized(0)
    };
    let upload = data.view.upload(&at("/a/d/e/f"), options).expect("begun");
    assert!(told.lines().is_empty(), "they are made when it is done");
    upload.commit(None).expect("committed");
    let made = [
        "made alice/a/d",
        "made alice/a/d/e",
        "written alice/a/d/e/f",
    ];
    assert_eq!(told.lines(), made);
}

#[test]
fn the_path_is_the_one_that_the_file_got() {
    let data = TestStore::new();
    data.put("/a.txt", b"old").expect("put");
    data.put("/b", b"b").expect("put");
    let told = Told::of(&data.store);
    data.put_if("/a.txt", b"new", IfExists::Rename)
        .expect("put");
    data.cp("/b", "/a.txt", IfExists::Rename).expect("copied");
    data.mv("/b", "/a.txt", IfExists::Rename).expect("moved");
    let lines = [
        "written alice/a (1).txt",
        "written alice/a (2).txt",
        "moved alice/a (3).txt < alice/b",
    ];
    assert_eq!(told.lines(), lines);
}

#[test]
fn a_path_through_a_link_is_told_as_the_place_that_it_leads_to() {
    let data = TestStore::new();
    data.mkdir("/2024/deep");
    symlink("2024/deep", data.on_disk("now")).expect("linked");
    let told = Told::of(&data.store);
    data.put("/now/a", b"a").expect("put");
    data.mkdir("/now/b/c");
    data.mv("/now/a", "/now/b/a", IfExists::Fail)
        .expect("moved");
    data.remove("/now/b").expect("gone");
    let lines = [
        "written alice/2024/deep/a",
        "made alice/2024/deep/b",
        "made alice/2024/deep/b/c",
        "moved alice/2024/deep/b/a < alice/2024/deep/a",
        "removed alice/2024/deep/b",
    ];
    assert_eq!(told.lines(), lines);
}

#[test]
fn a_move_into_another_space_is_one_change_with_both_of_them() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.put("/a", b"a").expect("put");
    let told = Told::of(&data.store);
    data.mv("/a", "/team/b", IfExists::Fail).expect("moved");
    data.mkdir("/team/tree");
    data.mv("/team/tree", "/tree", IfExists::Fail)
        .expect("moved");
    data.cp("/team/b", "/b", IfExists::Fail).expect("copied");
    let lines = [
        "moved team/b < alice/a",
        "made team/tree",
        "moved alice/tree < team/tree",
        "written alice/b",
    ];
    assert_eq!(told.lines(), lines);
}

#[test]
fn a_move_that_replaces_a_file_or_finds_itself_there_is_told_as_what_it_did() {
    let data = TestStore::new();
    data.put("/a", b"a").expect("put");
    data.put("/b", b"b").expect("put");
    std::fs::hard_link(data.on_disk("b"), data.on_disk("same")).expect("linked");
    let told = Told::of(&data.store);
    data.mv("/a", "/a", IfExists::Replace).expect("nothing");
    assert!(told.lines().is_empty());
    data.mv("/same", "/b", IfExists::Replace).expect("moved");
    assert_eq!(told.lines(), ["moved alice/b < alice/same"]);
    data.put("/a", b"a").expect("put");
    data.mv("/a", "/b", IfExists::Replace).expect("moved");
    let lines = ["written alice/a", "moved alice/b < alice/a"];
    assert_eq!(told.lines(), lines);
}

#[test]
fn a_change_says_which_space_and_who_did_it() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    let bobs = data
        .store
        .home("bob", SpaceLimits::default())
        .expect("a home");
    let mount = Mount {
        name: "team".into(),
        space: data
            .store
            .folder("team", SpaceLimits::default())
            .expect("there"),
        rights: Rights::ALL,
    };
    let bob = View::new(&data.store, bobs, vec![mount]);
    let told = Told::of(&data.store);
    data.put("/team/a", b"a").expect("put");
    bob.remove(&at("/team/a"), false, &never).expect("gone");
    bob.make_dir(&at("/dir"), false, None).expect("made");
    let changes = told.take();
    let by: Vec<_> = changes.iter().map(|change| &*change.by).collect();
    assert_eq!(by, ["alice", "bob", "bob"]);
    assert_eq!(changes[0].space, changes[1].space);
    assert_ne!(changes[1].space, changes[2].space);
    assert_eq!(changes[0].kind, ChangeKind::Written);
}

#[test]
fn a_later_space_of_the_same_name_is_another_one() {
    let data = TestStore::new();
    let told = Told::of(&data.store);
    data.put("/a", b"a").expect("put");
    set_home_aside(&data.data(""), "alice").expect("set aside");
    let home = data
        .store
        .home("alice", SpaceLimits::default())
        .expect("new");
    let view = View::new(&data.store, home, Vec::new());
    view.make_dir(&at("/a"), false, None).expect("made");
    let changes = told.take();
    assert_ne!(changes[0].space, changes[1].space);
}

#[test]
fn a_failed_operation_publishes_no_change() {
    let data = TestStore::with_bytes(100).mount("drop", Rights::READ, SpaceLimits::default());
    data.put("/a", b"old").expect("put");
    data.mkdir("/tree/sub");
    let told = Told::of(&data.store);
    data.put("/big", &[0; 200]).expect_err("over the quota");
    data.put_if("/a", b"new", IfExists::Fail)
        .expect_err("there");
    data.put("/nowhere/a", b"a").expect_err("no parent");
    data.put("/drop/a", b"a").expect_err("read only");
    data.mv("/a", "/tree", IfExists::Replace)
        .expect_err("a directory");
    data.mv("/tree", "/tree/sub/tree", IfExists::Fail)
        .expect_err("into itself");
    data.cp("/none", "/b", IfExists::Fail).expect_err("none");
    data.view
        .make_dir(&at("/tree"), false, None)
        .expect_err("there already");
    data.view
        .remove(&at("/tree"), false, &never)
        .expect_err("not empty");
    data.view
        .remove(&at("/tree"), true, &|| true)
        .expect_err("cancelled");
    let mut upload = data.view.upload(&at("/b"), sized(3)).expect("room");
    upload.write(b"b").expect("room");
    upload.commit(None).expect_err("too short");
    assert!(told.lines().is_empty());
}

#[test]
fn of_what_the_disk_does_not_keep_only_what_stays_visible_is_told() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    data.mkdir("/tree");
    let told = Told::of(&data.store);
    let sync = &data.home.staging.sync_hook;
    sync.then(works).then(fails);
    data.put("/a", b"new").expect_err("not kept");
    sync.then(works).then(fails);
    data.cp("/a", "/b", IfExists::Fail).expect_err("not kept");
    sync.then(fails);
    data.view
        .make_dir(&at("/dir"), true, None)
        .expect_err("not kept");
    assert!(told.lines().is_empty(), "it is taken back");
    for source_too in [false, true] {
        if source_too {
            sync.then(works);
        }
        sync.then(fails);
        let (from, to) = if source_too {
            ("/b2", "/c")
        } else {
            ("/a", "/b2")
        };
        data.mv(from, to, IfExists::Fail).expect_err("not kept");
    }
    sync.then(fails);
    data.remove("/tree").expect_err("not kept");
    data.put("/d", b"d").expect("put");
    let lines = [
        "moved alice/b2 < alice/a",
        "moved alice/c < alice/b2",
        "removed alice/tree",
        "written alice/d",
    ];
    assert_eq!(told.lines(), lines);
}

#[test]
fn a_change_is_told_only_once_the_disk_keeps_it_and_in_the_order_of_the_names() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    let told = Told::of(&data.store);
    let (view, heard) = (data.view.clone(), told.clone());
    // While the first one waits for the disk, the name goes away again.
    data.home.staging.sync_hook.then(works).then(move || {
        assert!(heard.lines().is_empty(), "it does not last yet");
        view.remove(&at("/a"), false, &never).expect("gone");
        assert!(heard.lines().is_empty(), "the first one comes first");
        Ok(())
    });
    data.put("/a", b"new").expect("put");
    assert_eq!(told.lines(), ["written alice/a", "removed alice/a"]);
    let view = data.view.clone();
    data.home.staging.sync_hook.then(works).then(move || {
        view.make_dir(&at("/dir"), false, None).expect("made");
        fails()
    });
    data.put("/a", b"new").expect_err("not kept");
    assert_eq!(told.lines(), ["made alice/dir"]);
}

#[test]
fn a_directory_that_already_exists_publishes_no_change() {
    let data = TestStore::new();
    data.put("/a", b"same").expect("put");
    let told = Told::of(&data.store);
    let begun = data.view.begin(&at("/a"), sized(4), &"s".into(), true);
    let BegunUpload::AlreadyCommitted(there) = begun.expect("begun") else {
        panic!("it is there");
    };
    there.confirm(None).expect("the same");
    assert!(told.lines().is_empty());
}

#[test]
fn only_the_first_observer_is_told() {
    let data = TestStore::new();
    let told = Told::of(&data.store);
    assert!(!data.store.observe(|_| panic!("it came second")));
    data.mkdir("/a");
    assert_eq!(told.take().len(), 1);
}

/// As `space/inner at path`, and what is hidden.
fn seen(data: &TestStore, path: &str) -> Vec<String> {
    let all = data.view.watch(&at(path)).expect("may be watched");
    let line = |seen: &VisiblePath| {
        let space = seen.space.split('/').nth(1).expect("a name");
        let hidden = seen.hidden.join(",");
        format!("{space}{} at {} {hidden}", seen.inner, seen.path)
    };
    all.iter().map(line).collect()
}

#[test]
fn a_watch_on_the_root_sees_the_home_and_the_folders_that_may_be_listed() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    assert_eq!(seen(&data, "/"), ["alice/ at / team", "team/ at /team "]);
    assert_eq!(seen(&data, "/team"), ["team/ at /team "]);
    data.mkdir("/team/a");
    assert_eq!(seen(&data, "/team/a"), ["team/a at /team/a "]);
    data.put("/b", b"b").expect("put");
    assert_eq!(seen(&data, "/b"), ["alice/b at /b "]);
    let data = TestStore::new().mount("box", Rights::DROP, SpaceLimits::default());
    assert_eq!(seen(&data, "/"), ["alice/ at / box"]);
    assert_fails!(data.view.watch(&at("/box")), StorageError::Denied { .. });
    assert_fails!(data.view.watch(&at("/box/a")), StorageError::Denied { .. });
    assert_fails!(data.view.watch(&at("/none")), StorageError::NotFound { .. });
    assert_eq!(
        data.view
            .visible_paths(&at("/none"))
            .expect("allowed")
            .len(),
        1
    );
}

#[test]
fn a_watch_on_a_link_sees_the_place_that_it_leads_to() {
    let data = TestStore::new();
    data.mkdir("/2024/deep");
    symlink("2024", data.on_disk("now")).expect("linked");
    assert_eq!(seen(&data, "/now"), ["alice/2024 at /now "]);
    assert_eq!(seen(&data, "/now/deep"), ["alice/2024/deep at /now/deep "]);
    let gone = data.view.visible_paths(&at("/now/none")).expect("allowed");
    assert_eq!(gone[0].inner, at("/2024/none"));
}

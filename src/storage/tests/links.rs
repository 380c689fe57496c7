//! Links and other things that are no files: nothing leads out, nothing blocks.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::storage::tests::*;

/// A home, and beside it what must never be reached.
pub(crate) fn with_secret() -> (TestStore, PathBuf) {
    let data = TestStore::new();
    let outside = data.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("canary"), b"top secret").expect("written");
    (data, outside)
}

pub(crate) fn assert_untouched(outside: &std::path::Path) {
    let entries = fs::read_dir(outside).expect("there").count();
    assert_eq!(entries, 1, "something came or went outside");
    let canary = fs::read(outside.join("canary")).expect("there");
    assert_eq!(canary, b"top secret");
}

#[test]
fn a_link_that_leads_out_is_as_if_absent() {
    let (data, outside) = with_secret();
    symlink(&outside, data.on_disk("absolute")).expect("linked");
    symlink("../../../outside", data.on_disk("relative")).expect("linked");
    symlink("absolute", data.on_disk("twice")).expect("linked");
    symlink(outside.join("canary"), data.on_disk("file")).expect("linked");
    for dir in ["/absolute", "/relative", "/twice"] {
        let canary = format!("{dir}/canary");
        assert_fails!(data.get(&canary), StorageError::NotFound { .. });
        assert_fails!(data.view.stat(&at(&canary)), StorageError::NotFound { .. });
        assert_fails!(data.view.stat(&at(dir)), StorageError::NotFound { .. });
        assert_fails!(data.view.enter(&at(dir)), StorageError::NotFound { .. });
        assert_fails!(
            data.view.list(&at(dir), None, 10, usize::MAX),
            StorageError::NotFound { .. }
        );
        assert_fails!(data.put(&canary, b"x"), StorageError::NotFound { .. });
        assert_fails!(data.remove(&canary), StorageError::NotFound { .. });
        assert_fails!(
            data.mv(&canary, "/mine", IfExists::Replace),
            StorageError::NotFound { .. }
        );
        assert_fails!(
            data.cp(&canary, "/mine", IfExists::Replace),
            StorageError::NotFound { .. }
        );
        assert_fails!(
            data.view.make_dir(&at(&format!("{dir}/new")), false, None),
            StorageError::NotFound { .. }
        );
        assert!(
            data.view
                .make_dir(&at(&format!("{dir}/new")), true, None)
                .is_err()
        );
    }
    assert_fails!(data.get("/file"), StorageError::NotFound { .. });
    assert_fails!(
        data.cp("/file", "/mine", IfExists::Fail),
        StorageError::NotFound { .. }
    );
    assert!(data.names("/").is_empty());
    assert_untouched(&outside);
}

#[test]
fn writing_never_follows_a_last_link() {
    let (data, outside) = with_secret();
    let link = |name: &str| {
        symlink(outside.join("canary"), data.on_disk(name)).expect("linked");
    };
    link("a");
    data.put("/a", b"mine").expect("in the link's place");
    assert_eq!(data.get("/a").expect("there"), b"mine");
    link("b");
    data.cp("/a", "/b", IfExists::Replace).expect("copied");
    link("c");
    data.mv("/a", "/c", IfExists::Replace).expect("moved");
    link("d");
    assert_fails!(
        data.put_if("/d", b"x", IfExists::Fail),
        StorageError::Exists { .. }
    );
    assert_eq!(data.remove("/d").expect("the link itself"), 1);
    symlink(&outside, data.on_disk("dir")).expect("linked");
    assert_eq!(data.remove("/dir").expect("the link itself"), 1);
    fs::create_dir(data.on_disk("tree")).expect("made");
    symlink(&outside, data.on_disk("tree/out")).expect("linked");
    data.cp("/tree", "/copy", IfExists::Fail).expect("copied");
    assert_eq!(data.remove("/tree").expect("removed"), 2);
    assert_untouched(&outside);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_link_that_stays_inside_is_followed_for_reading() {
    let data = TestStore::new();
    data.mkdir("/dir");
    data.put("/dir/a", b"abc").expect("put");
    symlink("dir/a", data.on_disk("file-link")).expect("linked");
    symlink("../dir", data.on_disk("dir/self")).expect("linked");
    assert_eq!(data.get("/file-link").expect("there"), b"abc");
    assert_eq!(data.get("/dir/self/self/a").expect("there"), b"abc");
    assert_eq!(data.names("/dir/self"), ["a", "self"]);
    data.put("/dir/self/b", b"b")
        .expect("a directory on the way");
    assert_eq!(data.get("/dir/b").expect("there"), b"b");
    assert_fails!(
        data.mv("/dir", "/dir/self/x", IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_fifo_a_socket_and_a_device_are_refused_and_never_block() {
    let data = TestStore::new();
    mkfifoat(CWD, data.on_disk("fifo"), Mode::RWXU).expect("made");
    let socket = std::os::unix::net::UnixListener::bind(data.on_disk("socket"));
    for path in ["/fifo", "/socket"] {
        assert_fails!(data.get(path), StorageError::Denied { .. });
        assert_fails!(data.view.stat(&at(path)), StorageError::Denied { .. });
        assert_fails!(
            data.digest(path, Algorithm::Md5),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.cp(path, "/copy", IfExists::Fail),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.mv(path, "/moved", IfExists::Fail),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.view.enter(&at(path)),
            StorageError::NotADirectory { .. }
        );
    }
    drop(socket.expect("bound"));
    data.put("/fifo", b"x").expect("in its place");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn removing_a_tree_does_not_follow_a_link_that_is_swapped_in() {
    const ROUNDS: usize = 300;
    let (data, outside) = with_secret();
    let done = AtomicBool::new(false);
    let (done, data, out) = (&done, &data, &outside);
    thread::scope(|scope| {
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                // Whatever is in staging at the moment: a directory of it becomes a link.
                for entry in fs::read_dir(data.data("staging"))
                    .into_iter()
                    .flatten()
                    .flatten()
                {
                    let (dir, kept) = (entry.path().join("sub"), entry.path().join("kept"));
                    if fs::rename(&dir, &kept).is_ok() {
                        let _ = symlink(out, &dir);
                    }
                }
            }
        });
        for _ in 0..ROUNDS {
            for n in 0..20 {
                fs::create_dir_all(data.on_disk(&format!("tree/sub/{n}"))).expect("made");
            }
            data.remove("/tree").expect("removed");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_untouched(&outside);
}

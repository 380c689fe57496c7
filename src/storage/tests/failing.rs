//! A disk that fails to keep what was written: nothing is acknowledged, and the old file stays.

use std::io;

use rustix::io::Errno;

use crate::storage::tests::*;

#[expect(clippy::unnecessary_wraps, reason = "one of the outcomes of a sync")]
fn works() -> io::Result<()> {
    Ok(())
}

fn fails() -> io::Result<()> {
    Err(Errno::IO.into())
}

/// Asserts that the disk failed, and that the server knows.
fn assert_failed<T: std::fmt::Debug>(data: &TestStore, result: Result<T, StorageError>) {
    assert_fails!(result, StorageError::Io { .. });
    assert!(data.store.is_degraded());
}

#[test]
fn an_upload_that_the_disk_does_not_keep_is_discarded_and_the_old_file_stays() {
    let data = TestStore::with_bytes(100);
    data.put("/a", b"old").expect("put");
    assert!(!data.store.is_degraded());
    data.home.staging.sync_hook.then(fails);
    assert_failed(&data, data.put("/a", b"newer"));
    assert_eq!(data.get("/a").expect("there"), b"old");
    data.assert_exact("/", "homes/alice");
    data.put("/a", b"newest").expect("put");
    assert!(data.store.is_degraded(), "it wants looking at");
}

#[test]
fn a_name_that_the_disk_does_not_keep_goes_back_to_the_old_file() {
    let data = TestStore::with_bytes(100);
    data.put("/a", b"old").expect("put");
    data.put("/b", b"another").expect("put");
    let old = data.view.stat(&at("/a")).expect("there").version;
    data.home.staging.sync_hook.then(works).then(fails);
    assert_failed(&data, data.put("/a", b"newer"));
    data.home.staging.sync_hook.then(works).then(fails);
    assert_failed(&data, data.cp("/b", "/a", IfExists::Replace));
    assert_eq!(data.get("/a").expect("there"), b"old");
    assert_eq!(data.view.stat(&at("/a")).expect("there").version, old);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_new_name_that_the_disk_does_not_keep_is_taken_back() {
    let data = TestStore::with_bytes(100);
    data.put("/a", b"old").expect("put");
    data.home.staging.sync_hook.then(works).then(fails);
    assert_failed(&data, data.put("/new", b"new"));
    data.home.staging.sync_hook.then(works).then(fails);
    assert_failed(&data, data.put_if("/a", b"new", IfExists::Rename));
    assert_eq!(data.names("/"), ["a"]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_link_that_is_replaced_in_vain_is_still_that_link() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    std::os::unix::fs::symlink("a", data.on_disk("link")).expect("linked");
    data.home.staging.sync_hook.then(works).then(fails);
    assert_failed(&data, data.put("/link", b"new"));
    let target = std::fs::read_link(data.on_disk("link")).expect("a link");
    assert_eq!(target, std::path::Path::new("a"));
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_replaced_file_is_charged_until_the_new_name_is_durable() {
    let data = TestStore::with_bytes(100);
    data.put("/a", &[1; 30]).expect("put");
    let view = data.view.clone();
    data.home.staging.sync_hook.then(works).then(move || {
        let usage = view.usage(&at("/")).expect("counted");
        assert_eq!((usage.used, usage.files), (70, 2));
        Ok(())
    });
    data.put("/a", &[2; 40]).expect("put");
    assert_eq!(data.used("/"), (40, 1));
    data.assert_exact("/", "homes/alice");
}

#[test]
fn an_upload_that_fails_late_takes_nothing_back_from_one_that_came_after_it() {
    let data = TestStore::with_bytes(100);
    data.put("/a", b"old").expect("put");
    let view = data.view.clone();
    // That this can be done at all shows that no lock is held while the disk is asked.
    data.home.staging.sync_hook.then(works).then(move || {
        let mut upload = view.upload(&at("/a"), sized(6)).expect("room");
        upload.write(b"second").expect("room");
        upload.commit(None).expect("committed");
        fails()
    });
    assert_failed(&data, data.put("/a", b"first"));
    assert_eq!(data.get("/a").expect("there"), b"second");
    data.assert_exact("/", "homes/alice");
    let view = data.view.clone();
    data.home.staging.sync_hook.then(works).then(move || {
        view.remove(&at("/a"), false, &never).expect("removed");
        fails()
    });
    assert_failed(&data, data.put("/a", b"third"));
    assert!(data.names("/").is_empty());
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_removal_is_acknowledged_only_once_the_disk_keeps_it() {
    let data = TestStore::with_bytes(100);
    data.mkdir("/tree/sub");
    data.mkdir("/empty");
    data.put("/tree/sub/a", b"a").expect("put");
    data.put("/b", b"bb").expect("put");
    for path in ["/b", "/tree"] {
        data.home.staging.sync_hook.then(fails);
        assert_failed(&data, data.remove(path));
    }
    data.home.staging.sync_hook.then(fails);
    assert_failed(&data, data.view.remove(&at("/empty"), false, &never));
    assert!(data.names("/").is_empty());
    assert_eq!(data.used("/"), (0, 0));
}

#[test]
fn a_new_home_that_the_disk_does_not_keep_is_refused_until_the_next_start() {
    let data = TestStore::new();
    let home = || data.store.home("bob", SpaceLimits::default()).map(drop);
    data.home.staging.sync_hook.then(fails);
    assert_failed(&data, home());
    // The disk has said so once, and would not again.
    assert_failed(&data, home());
    data.store
        .home("carol", SpaceLimits::default())
        .expect("another home");
}

//! Copies: whole, at once, and with their digests.

use std::cell::Cell;
use std::os::unix::fs::symlink;

use crate::storage::tests::*;

#[test]
fn a_copied_file_is_another_file_with_the_same_content() {
    let data = TestStore::new();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let original = data.put("/a", &content).expect("put");
    assert_eq!(data.cp("/a", "/b", IfExists::Fail).expect("copied"), "/b");
    assert_fails!(
        data.cp("/a", "/b", IfExists::Fail),
        StorageError::Exists { .. }
    );
    assert_eq!(
        data.cp("/a", "/b", IfExists::Rename).expect("copied"),
        "/b (1)"
    );
    data.cp("/a", "/b", IfExists::Replace).expect("copied");
    data.cp("/a", "/a", IfExists::Replace).expect("onto itself");
    assert!(data.get("/b").expect("there") == content);
    let copied = data.view.stat(&at("/b")).expect("there");
    assert_eq!(copied.digest, Some(original.digest));
    assert_ne!(copied.version, Some(original.version));
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_tree_is_copied_with_what_a_listing_shows_of_it() {
    let data = TestStore::new();
    data.mkdir("/tree/sub/empty");
    data.put("/tree/a", b"a").expect("put");
    data.put("/tree/sub/b", b"bb").expect("put");
    symlink("sub/b", data.on_disk("tree/link")).expect("linked");
    symlink("sub", data.on_disk("tree/dir-link")).expect("linked");
    symlink("/etc/passwd", data.on_disk("tree/out")).expect("linked");
    let _socket =
        std::os::unix::net::UnixListener::bind(data.on_disk("tree/socket")).expect("bound");
    symlink("socket", data.on_disk("tree/socket-link")).expect("linked");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        data.on_disk("tree/fifo"),
        rustix::fs::Mode::RWXU,
    )
    .expect("made");
    data.cp("/tree", "/copy", IfExists::Fail).expect("copied");
    assert_eq!(data.names("/copy"), ["a", "link", "sub"]);
    assert_eq!(data.names("/copy/sub"), ["b", "empty"]);
    assert_eq!(data.get("/copy/link").expect("a file now"), b"bb");
    assert_fails!(
        data.cp("/tree", "/copy", IfExists::Replace),
        StorageError::Exists { .. }
    );
    assert_fails!(
        data.cp("/tree", "/copy/a", IfExists::Replace),
        StorageError::NotADirectory { .. }
    );
    assert_eq!(
        data.cp("/tree", "/copy", IfExists::Rename).expect("copied"),
        "/copy (1)"
    );
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_tree_with_a_file_that_may_not_be_opened_is_not_copied() {
    disks::without_privileges("storage::tests::copies::copies_a_closed_file");
}

#[test]
#[ignore = "wants no privileges: run by the test above"]
fn copies_a_closed_file() {
    use std::os::unix::fs::PermissionsExt;
    let data = TestStore::new();
    data.mkdir("/tree");
    data.put("/tree/open", b"a").expect("put");
    data.put("/tree/closed", b"b").expect("put");
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(data.on_disk("tree/closed"), closed).expect("closed");
    assert_fails!(
        data.cp("/tree", "/copy", IfExists::Fail),
        StorageError::Denied { .. }
    );
    assert_eq!(data.names("/"), ["tree"]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_copy_that_is_cancelled_or_too_large_leaves_nothing() {
    let data = TestStore::with_bytes(100);
    for n in 0..6 {
        data.mkdir("/tree");
        data.put(&format!("/tree/{n}"), &[0; 10]).expect("put");
    }
    assert_fails!(
        data.cp("/tree", "/copy", IfExists::Fail),
        StorageError::QuotaExceeded { limit: 100, .. }
    );
    data.assert_exact("/", "homes/alice");
    let asked = Cell::new(0);
    let stop = || asked.replace(asked.get() + 1) == 3;
    assert_fails!(
        data.view
            .copy(&at("/tree"), &at("/copy"), IfExists::Fail, &stop),
        StorageError::Cancelled { .. }
    );
    assert_eq!(data.names("/"), ["tree"]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_copy_too_deep_to_be_named_is_refused_whole() {
    let data = TestStore::new();
    data.mkdir(&"/d".repeat(50));
    data.mkdir(&"/e".repeat(20));
    assert_fails!(
        data.cp("/d", &format!("{}/d", "/e".repeat(20)), IfExists::Fail),
        StorageError::InvalidPath(_)
    );
    assert!(data.names(&"/e".repeat(20)).is_empty());
    data.assert_exact("/", "homes/alice");
}

/// The view of bob, beside alice's.
fn bob(data: &TestStore, limits: SpaceLimits) -> View {
    let home = data.store.home("bob", limits).expect("a home");
    View::new(&data.store, home, Vec::new())
}

#[test]
fn a_received_file_is_another_file_with_the_same_content_and_digest() {
    use std::os::unix::fs::MetadataExt;
    let data = TestStore::new();
    data.mkdir("/secret");
    let original = data.put("/secret/a", &[7; 3000]).expect("put");
    let bob = bob(&data, SpaceLimits::default());
    let receive = |if_exists| {
        let (from, to) = (at("/secret/a"), at("/b"));
        bob.receive(&data.view, &from, &original.version, &to, if_exists, &never)
    };
    assert_eq!(receive(IfExists::Fail).expect("copied"), at("/b"));
    assert_fails!(receive(IfExists::Fail), StorageError::Exists { .. });
    assert_eq!(receive(IfExists::Rename).expect("copied"), at("/b (1)"));
    let got = bob.open(&at("/b"), None).expect("there");
    assert_eq!(read(&got).expect("read"), [7; 3000]);
    assert_eq!(got.info().digest, Some(original.digest));
    let meta = |path: &str| std::fs::metadata(data.data(path)).expect("there");
    let (theirs, ours) = (meta("homes/alice/secret/a"), meta("homes/bob/b"));
    assert_ne!(theirs.ino(), ours.ino());
    assert_eq!((theirs.nlink(), ours.nlink()), (1, 1), "no hard link");
    std::fs::write(data.data("homes/bob/b"), b"mine now").expect("written");
    assert_eq!(data.get("/secret/a").expect("there"), [7; 3000]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_failed_receive_leaves_nothing_and_hides_the_path_of_the_sender() {
    let data = TestStore::new();
    data.mkdir("/secret/dir");
    let old = data.put("/secret/a", b"old").expect("put").version;
    let new = data.put("/secret/a", &[0; 100]).expect("put").version;
    let limits = SpaceLimits {
        bytes: Some(99),
        files: None,
    };
    let bob = bob(&data, limits);
    let receive = |from: &str, version: &str, stop: &dyn Fn() -> bool| {
        let (from, to) = (at(from), at("/b"));
        let received = bob.receive(&data.view, &from, version, &to, IfExists::Fail, stop);
        let error = received.expect_err("refused");
        assert!(!error.to_string().contains("secret"), "{error}");
        Err::<(), _>(error)
    };
    assert_fails!(
        receive("/secret/a", &old, &never),
        StorageError::Changed { .. }
    );
    assert_fails!(
        receive("/secret/b", &new, &never),
        StorageError::NotFound { .. }
    );
    assert_fails!(
        receive("/secret/dir", &new, &never),
        StorageError::IsADirectory { .. }
    );
    assert_fails!(
        receive("/secret/a", &new, &never),
        StorageError::QuotaExceeded { limit: 99, .. }
    );
    assert_eq!(data.staged(), 0);
    assert_eq!(bob.usage(&VirtualPath::root()).expect("counted").used, 0);
}

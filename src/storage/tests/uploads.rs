//! Uploads: whole or not at all.

use std::thread;

use crate::storage::tests::*;

#[test]
fn an_upload_appears_when_it_is_committed_and_not_before() {
    let data = TestStore::new();
    let mut upload = data.view.upload(&at("/a.bin"), sized(6)).expect("room");
    upload.write(b"abc").expect("room");
    upload.write(b"def").expect("room");
    assert_eq!((upload.written(), upload.path().as_str()), (6, "/a.bin"));
    assert!(upload.id().len() == 32 && upload.id().bytes().all(|b| b.is_ascii_hexdigit()));
    assert_fails!(data.get("/a.bin"), StorageError::NotFound { .. });
    let committed = upload.commit(None).expect("whole");
    assert_eq!(committed.path, at("/a.bin"));
    assert_eq!(committed.size, 6);
    assert_eq!(
        committed.digest,
        Digest::compute(Algorithm::Blake3, b"abcdef")
    );
    assert_eq!(data.get("/a.bin").expect("there"), b"abcdef");
    let info = data.view.stat(&at("/a.bin")).expect("there");
    assert_eq!(info.version.as_ref(), Some(&committed.version));
    assert_eq!(info.digest, Some(committed.digest));
    data.assert_exact("/", "homes/alice");
}

#[test]
fn the_old_file_is_intact_until_the_commit_and_after_every_failure() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    let mut upload = data.view.upload(&at("/a"), sized(3)).expect("room");
    upload.write(b"new").expect("room");
    assert_eq!(data.get("/a").expect("there"), b"old");
    drop(upload);
    let mut upload = data.view.upload(&at("/a"), sized(3)).expect("room");
    upload.write(b"new").expect("room");
    let wrong = Digest::compute(Algorithm::Blake3, b"other");
    assert_fails!(
        upload.commit(Some(wrong)),
        StorageError::DigestMismatch { .. }
    );
    assert_eq!(data.get("/a").expect("there"), b"old");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn more_or_fewer_bytes_than_declared_are_discarded() {
    let data = TestStore::new();
    let mut upload = data.view.upload(&at("/a"), sized(3)).expect("room");
    upload.write(b"ab").expect("fits");
    assert_fails!(
        upload.write(b"cd"),
        StorageError::SizeMismatch {
            declared: 3,
            received: 4,
            ..
        }
    );
    assert_fails!(upload.write(b"c"), StorageError::Io { .. });
    assert_fails!(upload.commit(None), StorageError::Io { .. });
    let mut upload = data.view.upload(&at("/a"), sized(3)).expect("room");
    upload.write(b"ab").expect("fits");
    assert_fails!(
        upload.commit(None),
        StorageError::SizeMismatch {
            declared: 3,
            received: 2,
            ..
        }
    );
    assert!(data.names("/").is_empty());
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_digest_of_another_algorithm_is_compared_as_well() {
    let data = TestStore::new();
    for algorithm in Algorithm::ALL {
        let mut upload = data.view.upload(&at("/a"), unsized_upload()).expect("room");
        upload.write(b"abc").expect("room");
        let committed = upload.commit(Some(Digest::compute(algorithm, b"abc")));
        let digest = committed.expect("the right digest").digest;
        assert_eq!(digest, Digest::compute(Algorithm::Blake3, b"abc"));
        let mut upload = data.view.upload(&at("/a"), unsized_upload()).expect("room");
        upload.write(b"abc").expect("room");
        let wrong = Digest::compute(algorithm, b"abd");
        assert_fails!(
            upload.commit(Some(wrong)),
            StorageError::DigestMismatch { .. }
        );
    }
}

#[test]
fn zero_bytes_are_a_file() {
    let data = TestStore::with_bytes(0);
    for options in [sized(0), unsized_upload()] {
        let upload = data.view.upload(&at("/empty"), options).expect("room");
        upload.commit(None).expect("whole");
    }
    assert_eq!(data.get("/empty").expect("there"), b"");
    assert_eq!(data.used("/"), (0, 1));
}

#[test]
fn a_size_beyond_the_disk_is_refused_before_anything_exists() {
    let data = TestStore::new();
    for size in [1 << 63, u64::MAX, 1 << 53] {
        let options = UploadOptions {
            size: Some(size),
            ..unsized_upload()
        };
        assert_fails!(
            data.view.upload(&at("/a"), options),
            StorageError::NoSpace { .. }
        );
    }
    data.assert_exact("/", "homes/alice");
}

#[test]
fn an_upload_onto_a_directory_is_refused() {
    let data = TestStore::new();
    data.mkdir("/reports");
    for path in ["/reports", "/"] {
        assert_fails!(data.put(path, b"x"), StorageError::IsADirectory { .. });
    }
    assert_fails!(
        data.put_if("/reports", b"x", IfExists::Fail),
        StorageError::Exists { .. }
    );
    let mut upload = data.view.upload(&at("/late"), sized(1)).expect("room");
    upload.write(b"x").expect("room");
    data.mkdir("/late");
    assert_fails!(upload.commit(None), StorageError::IsADirectory { .. });
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_trailing_slash_or_a_file_on_the_way_is_refused() {
    let data = TestStore::new();
    data.put("/a.bin", b"x").expect("put");
    assert_fails!(data.put("/b.bin/", b"x"), StorageError::InvalidPath(_));
    assert_fails!(data.get("/a.bin/"), StorageError::InvalidPath(_));
    assert_fails!(data.view.stat(&at("/a.bin/")), StorageError::InvalidPath(_));
    assert_fails!(
        data.put("/a.bin/c", b"x"),
        StorageError::NotADirectory { .. }
    );
    assert_fails!(data.put("/no/c", b"x"), StorageError::NotFound { .. });
}

#[test]
fn if_exists_decides_at_the_commit() {
    let data = TestStore::new();
    let mut late = data.view.upload(
        &at("/a.txt"),
        UploadOptions {
            if_exists: IfExists::Fail,
            ..sized(1)
        },
    );
    late.as_mut().expect("room").write(b"l").expect("room");
    data.put("/a.txt", b"first").expect("put");
    assert_fails!(
        late.expect("begun").commit(None),
        StorageError::Exists { .. }
    );
    for expected in ["/a (1).txt", "/a (2).txt"] {
        let committed = data.put_if("/a.txt", b"x", IfExists::Rename).expect("put");
        assert_eq!(committed.path, at(expected));
    }
    assert_eq!(data.get("/a.txt").expect("there"), b"first");
}

#[test]
fn missing_directories_are_made_with_the_file_and_not_without() {
    let data = TestStore::new();
    let options = UploadOptions {
        parents: true,
        ..sized(1)
    };
    drop(data.view.upload(&at("/a/b/c.txt"), options).expect("room"));
    assert!(data.names("/").is_empty());
    let mut upload = data.view.upload(&at("/a/b/c.txt"), options).expect("room");
    upload.write(b"x").expect("room");
    upload.commit(None).expect("whole");
    assert_eq!(data.get("/a/b/c.txt").expect("there"), b"x");
}

#[test]
fn a_file_gets_the_time_that_was_asked_for() {
    let data = TestStore::new();
    for time in ["2001-02-03T04:05:06.789012345Z", "1955-11-05T06:15:00.25Z"] {
        let options = UploadOptions {
            modified: Some(time.parse().expect("a time")),
            ..unsized_upload()
        };
        let upload = data.view.upload(&at("/a"), options).expect("room");
        upload.commit(None).expect("whole");
        let info = data.view.stat(&at("/a")).expect("there");
        assert_eq!(info.modified.to_string(), time);
        assert!(info.digest.is_some(), "kept for exactly this time");
    }
}

#[test]
fn of_uploads_to_the_same_path_the_last_commit_wins_whole() {
    let data = TestStore::new();
    let contents: Vec<_> = (0..8u8).map(|n| vec![n; 70_000 + usize::from(n)]).collect();
    thread::scope(|scope| {
        for content in &contents {
            let data = &data;
            scope.spawn(move || {
                for _ in 0..10 {
                    data.put("/same", content).expect("put");
                }
            });
        }
        for _ in 0..200 {
            match data.get("/same") {
                Err(StorageError::NotFound { .. }) => {}
                seen => assert!(contents.contains(&seen.expect("whole"))),
            }
        }
    });
    assert!(contents.contains(&data.get("/same").expect("there")));
    data.assert_exact("/", "homes/alice");
}

#[test]
fn an_upload_whose_directory_is_gone_fails_and_leaves_nothing() {
    let data = TestStore::new();
    data.mkdir("/dir");
    let mut upload = data.view.upload(&at("/dir/a"), sized(1)).expect("room");
    upload.write(b"x").expect("room");
    data.remove("/dir").expect("removed");
    assert_fails!(upload.commit(None), StorageError::NotFound { .. });
    data.assert_exact("/", "homes/alice");
}

#[test]
fn staging_is_emptied_behind_the_start_of_the_next_server_and_no_two_share_it() {
    let data = TestStore::new();
    assert_fails!(Store::open(&data.data("")), StorageError::InUse { .. });
    let TestStore {
        dir,
        store,
        home,
        view,
    } = data;
    let mut upload = view.upload(&at("/a"), sized(9)).expect("room");
    upload.write(b"x").expect("room");
    std::fs::write(dir.path().join("data/staging/left"), b"x").expect("written");
    let tree = dir.path().join("data/staging/tree/deep");
    std::fs::create_dir_all(&tree).expect("made");
    std::fs::write(tree.join("file"), b"x").expect("written");
    drop((store, home, view));
    assert_fails!(
        Store::open(&dir.path().join("data")),
        StorageError::InUse { .. }
    );
    drop(upload);
    let store = open_and_tidy(&dir.path().join("data"));
    let staging = std::fs::read_dir(dir.path().join("data/staging"));
    assert_eq!(staging.expect("there").count(), 0);
    assert!(!store.is_degraded());
}

#[test]
fn nobody_else_may_read_what_is_stored() {
    use std::os::unix::fs::PermissionsExt;
    let data = TestStore::new();
    data.mkdir("/dir");
    data.put("/dir/a", b"x").expect("put");
    for (path, mode) in [("", 0o700), ("dir", 0o700), ("dir/a", 0o600)] {
        let metadata = std::fs::metadata(data.on_disk(path)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
}

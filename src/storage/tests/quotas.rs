//! Quotas: exact, whatever happens.

use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::storage::CountEnd;
use crate::storage::tests::*;

#[test]
fn exactly_the_quota_fits_and_one_byte_more_does_not() {
    for options in [sized(100), unsized_upload()] {
        let data = TestStore::with_bytes(100);
        let mut upload = data.view.upload(&at("/a"), options).expect("room");
        upload.write(&[0; 99]).expect("room");
        upload.write(&[0; 1]).expect("room");
        upload.commit(None).expect("whole");
        assert_fails!(
            data.put("/b", b"x"),
            StorageError::QuotaExceeded {
                used: 100,
                limit: 100,
                files: false,
                ..
            }
        );
        data.put("/empty", b"").expect("takes no room");
        data.assert_exact("/", "homes/alice");
    }
}

#[test]
fn an_upload_of_unknown_size_reserves_as_it_grows() {
    let data = TestStore::with_bytes(10);
    let mut first = data.view.upload(&at("/a"), unsized_upload()).expect("room");
    let mut second = data.view.upload(&at("/b"), unsized_upload()).expect("room");
    first.write(&[0; 6]).expect("room");
    assert_fails!(
        second.write(&[0; 5]),
        StorageError::QuotaExceeded {
            used: 6,
            reserved: 6,
            ..
        }
    );
    assert_eq!(data.used("/"), (6, 0));
    drop(second);
    first.write(&[0; 4]).expect("room");
    assert_fails!(
        first.write(&[0; 1]),
        StorageError::QuotaExceeded { used: 10, .. }
    );
    drop(first);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn replacing_a_file_needs_quota_for_both_files() {
    let data = TestStore::with_bytes(10);
    data.put("/a", &[0; 6]).expect("room");
    assert_fails!(
        data.put("/a", &[0; 5]),
        StorageError::QuotaExceeded {
            used: 6,
            reserved: 0,
            ..
        }
    );
    data.put("/a", &[0; 4]).expect("room");
    data.put("/a", &[0; 6]).expect("room");
    data.assert_exact("/", "homes/alice");
}

fn files(files: u64) -> SpaceLimits {
    SpaceLimits {
        bytes: None,
        files: Some(files),
    }
}

/// Asserts that an operation would have passed a limit of entries.
fn assert_too_many<T: std::fmt::Debug>(result: Result<T, StorageError>, used: u64, limit: u64) {
    match result {
        Err(StorageError::QuotaExceeded {
            used: told,
            limit: allowed,
            files: true,
            ..
        }) => assert_eq!((told, allowed), (used, limit)),
        other => panic!("expected a limit of entries, got {other:?}"),
    }
}

#[test]
fn every_entry_counts_whatever_it_is_and_however_it_comes() {
    let data = TestStore::with_limits(files(6)).mount("team", Rights::ALL, files(3));
    symlink("a", data.on_disk("link")).expect("linked");
    data.mkdir("/a/b");
    assert_eq!(data.used("/"), (0, 3));
    assert_too_many(data.view.make_dir(&at("/a/b/c/d/e/f"), true, None), 3, 6);
    assert_eq!(data.names("/a/b"), [""; 0]);
    let parents = |path: &str| {
        let options = UploadOptions {
            parents: true,
            ..sized(0)
        };
        data.view.upload(&at(path), options)?.commit(None)
    };
    assert_too_many(parents("/a/b/c/d/e/f"), 4, 6);
    assert_eq!(data.names("/a/b"), [""; 0]);
    parents("/a/b/c/d").expect("room");
    assert_too_many(data.cp("/a/b", "/copy", IfExists::Fail), 6, 6);
    data.view.make_dir(&at("/last"), false, None).expect("room");
    assert_too_many(data.view.make_dir(&at("/more"), false, None), 6, 6);
    assert_fails!(
        data.view.make_dir(&at("/last"), false, None),
        StorageError::Exists { .. }
    );
    assert_too_many(data.put("/more", b""), 6, 6);
    assert_too_many(data.mv("/a", "/team/a", IfExists::Fail), 0, 3);
    data.mv("/a/b", "/team/b", IfExists::Fail).expect("room");
    data.mv("/link", "/a/link", IfExists::Fail).expect("moved");
    assert_eq!((data.used("/"), data.used("/team")), ((0, 3), (0, 3)));
    data.mv("/a/link", "/team/b/c/d", IfExists::Replace)
        .expect_err("the old one counts until the new one is there");
    data.remove("/team/b/c").expect("removed");
    data.mv("/a/link", "/team/link", IfExists::Fail)
        .expect("room");
    data.view
        .remove(&at("/team/link"), false, &never)
        .expect("removed");
    data.view
        .remove(&at("/last"), false, &never)
        .expect("removed");
    assert_eq!((data.used("/"), data.used("/team")), ((0, 1), (0, 1)));
    data.assert_exact("/", "homes/alice");
    data.assert_exact("/team", "folders/team");
}

#[test]
fn a_limit_of_bytes_bounds_the_entries_too() {
    let data = TestStore::with_bytes(3 * 4096);
    for number in 0..1002 {
        std::fs::write(data.on_disk(&number.to_string()), "").expect("written");
    }
    data.view
        .make_dir(&at("/dir"), false, None)
        .expect("the last one");
    assert_too_many(
        data.view.make_dir(&at("/dir/more"), false, None),
        1003,
        1003,
    );
    assert_too_many(data.put("/dir/more", b""), 1003, 1003);
    let own = SpaceLimits {
        bytes: Some(3 * 4096),
        files: Some(1004),
    };
    data.store.home("alice", own).expect("the same home");
    data.put("/dir/more", b"").expect("room");
}

#[test]
fn a_declared_size_reserves_nothing_until_data_arrives() {
    let data = TestStore::with_bytes(100);
    let begin = |path| {
        data.view
            .upload(&at(path), sized(100))
            .expect("it could fit")
    };
    let mut silent = begin("/silent");
    assert_eq!(data.used("/"), (0, 0));
    let mut half = begin("/half");
    half.write(&[0; 50]).expect("room");
    assert_eq!(data.used("/"), (100, 0), "as much again is held");
    assert_fails!(
        data.put("/late", b"x"),
        StorageError::QuotaExceeded { used: 100, .. }
    );
    assert_fails!(
        silent.write(&[0; 1]),
        StorageError::QuotaExceeded { used: 100, .. }
    );
    half.write(&[0; 50]).expect("held");
    half.commit(None).expect("whole");
    assert_fails!(
        data.view.upload(&at("/never"), sized(101)),
        StorageError::QuotaExceeded {
            used: 100,
            limit: 100,
            ..
        }
    );
    drop(silent);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn files_that_are_open_count_once_something_has_come_of_them() {
    let data = TestStore::with_limits(files(2));
    let begin = |path: &str| {
        data.view
            .upload(&at(path), sized(100_000))
            .expect("it could fit")
    };
    let open: Vec<_> = (0..9).map(|number| begin(&format!("/{number}"))).collect();
    data.put("/a", b"").expect("room");
    let mut last = begin("/b");
    last.write(&vec![0; 70_000]).expect("room");
    assert_eq!(data.used("/").1, 2);
    for mut upload in open {
        upload.write(&vec![0; 10_000]).expect("room");
        assert_too_many(upload.write(&vec![0; 90_000]), 2, 2);
    }
    assert_too_many(data.view.upload(&at("/c"), sized(0)), 2, 2);
    assert!(last.keep().expect("kept"));
    let empty = data
        .view
        .upload(&at("/c"), sized(0))
        .expect("a kept one gives way");
    empty.commit(None).expect("room");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn an_upload_takes_the_last_bytes_one_by_one_where_others_hold_the_rest() {
    let data = TestStore::with_bytes(100);
    data.put("/a", &[0; 60]).expect("room");
    let mut upload = data.view.upload(&at("/b"), sized(40)).expect("room");
    let mut other = data.view.upload(&at("/c"), unsized_upload()).expect("room");
    other.write(&[0; 15]).expect("room");
    upload
        .write(&[0; 20])
        .expect("room, but not for as much again");
    assert_eq!(data.used("/").0, 95);
    upload.write(&[0; 5]).expect("room");
    assert_eq!(data.used("/").0, 100);
    drop(other);
    upload.write(&[0; 15]).expect("room");
    upload.commit(None).expect("whole");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn partial_uploads_are_evicted_for_new_uploads_the_oldest_first() {
    const PART: usize = 100_000;
    let limits = SpaceLimits {
        bytes: Some(3 * PART as u64),
        files: None,
    };
    let data = TestStore::new().mount("team", Rights::ALL, limits);
    let folder = data.store.folder("team", limits).expect("a folder");
    let bob = data
        .store
        .home("bob", SpaceLimits::default())
        .expect("a home");
    let mount = Mount {
        name: "team".to_owned(),
        space: folder,
        rights: Rights::DROP,
    };
    let bob = View::new(&data.store, bob, vec![mount]);
    for path in ["/team/1", "/team/2", "/team/3"] {
        let mut upload = bob.upload(&at(path), sized(PART + 1)).expect("room");
        upload.write(&vec![0; PART]).expect("room");
        assert!(upload.keep().expect("kept"));
    }
    let kept = || -> Vec<_> {
        let kept = bob.uploads().expect("known").into_iter();
        kept.map(|upload| upload.path.to_string()).collect()
    };
    assert_eq!(data.used("/team"), (3 * PART as u64, 3));
    assert_fails!(
        data.view.upload(&at("/team/a"), sized(3 * PART + 1)),
        StorageError::QuotaExceeded { .. }
    );
    let mut upload = data
        .view
        .upload(&at("/team/a"), sized(PART))
        .expect("it could fit");
    assert_eq!(kept().len(), 3, "a word costs nobody anything");
    upload.write(&vec![0; PART]).expect("room");
    assert_eq!(kept(), ["/team/3", "/team/2"]);
    upload.commit(None).expect("whole");
    data.put("/b", &vec![0; 2 * PART]).expect("put");
    data.mv("/b", "/team/b", IfExists::Fail).expect("room");
    assert_eq!(kept(), [""; 0]);
    data.assert_exact("/team", "folders/team");
}

#[test]
fn files_from_before_the_start_are_counted() {
    let data = TestStore::with_bytes(10);
    std::fs::create_dir(data.on_disk("dir")).expect("made");
    std::fs::write(data.on_disk("dir/a"), [0; 7]).expect("written");
    assert_fails!(
        data.put("/b", &[0; 4]),
        StorageError::QuotaExceeded { used: 7, .. }
    );
    let usage = data.view.usage(&at("/dir")).expect("counted");
    assert_eq!((usage.used, usage.files), (7, 2));
    assert_eq!(usage.limits.bytes, Some(10));
    assert!(usage.free > 0);
}

#[test]
fn new_limits_apply_to_open_sessions() {
    let data = TestStore::with_bytes(10);
    data.put("/a", &[0; 8]).expect("room");
    let limits = SpaceLimits {
        bytes: Some(5),
        files: None,
    };
    data.store.home("alice", limits).expect("the same home");
    assert_fails!(
        data.put("/b", b"x"),
        StorageError::QuotaExceeded {
            used: 8,
            limit: 5,
            ..
        }
    );
    data.put("/empty", b"").expect("takes no room");
    data.mv("/a", "/c", IfExists::Fail).expect("takes no room");
}

#[test]
fn a_folder_has_a_quota_of_its_own_for_all_that_comes_in() {
    let limits = SpaceLimits {
        bytes: Some(10),
        files: None,
    };
    let data = TestStore::new().mount("team", Rights::ALL, limits);
    data.mkdir("/dir");
    data.put("/dir/a", &[0; 6]).expect("room");
    data.put("/dir/b", &[0; 6]).expect("room");
    data.put("/c", &[0; 11]).expect("room");
    for from in ["/dir", "/c"] {
        assert_fails!(
            data.mv(from, "/team/x", IfExists::Fail),
            StorageError::QuotaExceeded { used: 0, .. }
        );
        assert_fails!(
            data.cp(from, "/team/x", IfExists::Fail),
            StorageError::QuotaExceeded { .. }
        );
    }
    data.remove("/dir/b").expect("removed");
    data.mv("/dir", "/team/dir", IfExists::Fail).expect("fits");
    assert_eq!(data.used("/team"), (6, 2));
    assert_eq!(data.used("/"), (11, 1));
    data.mv("/team/dir/a", "/c", IfExists::Replace)
        .expect("back");
    data.assert_exact("/team", "folders/team");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn eight_uploads_that_race_for_the_quota_never_exceed_it() {
    const LIMIT: u64 = 100_000;
    let data = TestStore::with_bytes(LIMIT);
    let start = Barrier::new(8);
    let stored = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..8 {
            let (data, start, stored) = (&data, &start, &stored);
            scope.spawn(move || {
                start.wait();
                for round in 0..25 {
                    let options = if round % 2 == 0 {
                        sized(997)
                    } else {
                        unsized_upload()
                    };
                    let path = format!("/{worker}-{round}");
                    let result = data
                        .view
                        .upload(&at(&path), options)
                        .and_then(|mut upload| {
                            upload.write(&[0; 500])?;
                            upload.write(&[0; 497])?;
                            upload.commit(None)
                        });
                    assert!(data.used("/").0 <= LIMIT);
                    match result {
                        Ok(_) => stored.fetch_add(997, Ordering::Relaxed),
                        Err(StorageError::QuotaExceeded { .. }) => 0,
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
    });
    let stored = stored.into_inner();
    assert!(stored <= LIMIT && stored > LIMIT - 8 * 997, "{stored}");
    assert_eq!(data.used("/").0, stored);
    data.assert_exact("/", "homes/alice");
}

/// An upload that is under way when its space gets its first limit, which is being counted then.
fn limited_midway(limit: u64) -> (TestStore, Upload, impl Sized) {
    let data = TestStore::new();
    data.store.count_in_background();
    let options = UploadOptions {
        parents: true,
        ..sized(200_000)
    };
    let mut upload = data.view.upload(&at("/d/a"), options).expect("no limit");
    upload.write(&[0; 10_000]).expect("no limit");
    data.home.ledger().limits = SpaceLimits {
        bytes: Some(limit),
        files: None,
    };
    let (counts, end) = CountEnd::channel();
    data.home.set_counting(Some(end));
    (data, upload, counts)
}

fn count_now(data: &TestStore) {
    while let Err(error) = data.view.usage(&at("/")) {
        assert_fails!(Err::<(), _>(error), StorageError::Counting { .. });
        thread::yield_now();
    }
}

#[test]
fn the_first_limit_of_a_space_does_not_end_an_upload_that_is_under_way() {
    let (data, mut upload, _counts) = limited_midway(1_000_000);
    assert_fails!(data.put("/new", b"x"), StorageError::Counting { .. });
    upload.write(&vec![0; 190_000]).expect("goes on uncounted");
    upload.commit(None).expect("goes on uncounted");
    data.home.set_counting(None);
    count_now(&data);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn an_upload_that_went_on_uncounted_is_checked_once_its_space_is_counted() {
    let (data, mut upload, _counts) = limited_midway(150_000);
    upload.write(&vec![0; 90_000]).expect("goes on uncounted");
    data.home.set_counting(None);
    count_now(&data);
    assert_fails!(
        upload.write(&vec![0; 100_000]),
        StorageError::QuotaExceeded { limit: 150_000, .. }
    );
    drop(upload);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_kept_upload_counts_as_an_entry_however_its_bytes_came() {
    let data = TestStore::with_limits(files(10));
    let mut upload = data.view.upload(&at("/a"), sized(200_000)).expect("room");
    for _ in 0..2 {
        upload.write(&vec![0; 60_000]).expect("room");
    }
    assert!(upload.keep().expect("kept"));
    assert_eq!(data.used("/"), (120_000, 1));
}

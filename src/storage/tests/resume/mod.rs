//! Partial uploads: kept, found again after a crash, resumed, and charged exactly.

mod records;
mod retention;

use std::fs;

use rustix::fs::{FlockOperation, flock};

use crate::storage::local::space_count::SpaceCount;
use crate::storage::tests::*;

pub(super) const SIZE: usize = 200_000;

pub(super) fn content(seed: u8) -> Vec<u8> {
    (0_u32..200_000)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed)
        .collect()
}

pub(super) fn session(name: &str) -> Arc<str> {
    name.into()
}

/// Begins an upload to `path` and sends so many bytes of `content`.
fn partly(data: &TestStore, path: &str, content: &[u8], length: usize) -> Upload {
    let mut upload = data
        .view
        .upload(&at(path), sized(content.len()))
        .expect("room");
    upload.write(&content[..length]).expect("room");
    upload
}

pub(super) fn begin(
    data: &TestStore,
    path: &str,
    options: UploadOptions,
) -> Result<BegunUpload, StorageError> {
    data.view.begin(&at(path), options, &session("later"), true)
}

fn resume(data: &TestStore, path: &str, options: UploadOptions) -> Upload {
    match begin(data, path, options) {
        Ok(BegunUpload::Upload(mut upload)) => {
            while !upload.hash_prefix(70_000).expect("readable") {}
            *upload
        }
        other => panic!("not an upload: {other:?}"),
    }
}

/// Makes a checkpoint now, as if its interval had passed.
fn checkpoint(upload: &mut Upload) {
    upload.expire_checkpoint_interval();
    upload
        .begin_checkpoint()
        .expect("due")
        .run()
        .expect("saved");
    upload.checkpointed();
}

/// What is left of a server that was killed: its files, and nothing that it would still have done.
fn crash(data: TestStore, uploads: impl IntoIterator<Item = Upload>) -> TestStore {
    for upload in uploads {
        std::mem::forget(upload);
    }
    flock(&data.home.staging.dir, FlockOperation::Unlock).expect("unlocked");
    let TestStore {
        dir,
        store,
        home,
        view,
    } = data;
    std::mem::forget((store, home, view));
    reopen(dir)
}

fn reopen(dir: TempDir) -> TestStore {
    let store = open_and_tidy(&dir.path().join("data"));
    let home = store.home("alice", SpaceLimits::default()).expect("a home");
    let view = View::new(&store, Arc::clone(&home), Vec::new());
    TestStore {
        dir,
        store,
        home,
        view,
    }
}

fn restart(data: TestStore) -> TestStore {
    let dir = data.dir;
    drop((data.store, data.home, data.view));
    reopen(dir)
}

fn offsets(data: &TestStore) -> Vec<u64> {
    data.view
        .uploads()
        .expect("open")
        .iter()
        .map(|kept| kept.offset)
        .collect()
}

/// Asserts that nothing is kept, and nothing of it is left.
fn assert_nothing_kept(data: &TestStore) {
    assert_eq!(offsets(data), [0_u64; 0]);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_resumed_upload_has_the_digest_of_the_complete_file() {
    let data = TestStore::with_bytes(SIZE as u64);
    let all = content(0);
    let upload = partly(&data, "/a", &all, 150_000);
    let id = upload.id().to_owned();
    assert_eq!(data.used("/"), (SIZE as u64, 1));
    assert!(upload.keep().expect("kept"));
    assert_eq!(data.used("/"), (150_000, 1));
    assert!(data.names("/").is_empty());
    let kept = data.view.uploads().expect("open");
    assert_eq!(kept.len(), 1);
    assert_eq!((&*kept[0].id, kept[0].path.as_str()), (&*id, "/a"));
    assert_eq!((kept[0].size, kept[0].offset), (Some(SIZE as u64), 150_000));
    assert!(kept[0].expires > jiff::Timestamp::now());
    for algorithm in Algorithm::ALL {
        let options = UploadOptions {
            algorithm,
            ..sized(SIZE)
        };
        let mut upload = resume(&data, "/a", options);
        assert_eq!((upload.written(), upload.id()), (150_000, &*id));
        assert_eq!(data.used("/"), (150_000, 1));
        assert_eq!(
            upload.prefix(),
            Some(Digest::compute(algorithm, &all[..150_000]))
        );
        if algorithm == Algorithm::Md5 {
            upload.write(&all[150_000..]).expect("room");
            let committed = upload.commit(Some(Digest::compute(algorithm, &all)));
            assert_eq!(
                committed.expect("whole").digest,
                Digest::compute(algorithm, &all)
            );
        } else {
            assert!(upload.keep().expect("kept"));
        }
    }
    assert!(data.get("/a").expect("there") == all);
    assert_nothing_kept(&data);
}

#[test]
fn a_killed_upload_is_recovered_at_its_last_checkpoint() {
    let all = content(0);
    let mut data = TestStore::new();
    for lengths in [&[100_000][..], &[66_000, 132_000], &[66_000, 132_000, SIZE]] {
        let mut upload = data.view.upload(&at("/a"), sized(SIZE)).expect("room");
        let mut sent = 0;
        for length in lengths {
            upload.write(&all[sent..*length]).expect("room");
            sent = *length;
            checkpoint(&mut upload);
        }
        // Not known to be on the disk.
        upload
            .write(&all[sent..SIZE.min(sent + 30_000)])
            .expect("room");
        data = crash(data, [upload]);
        assert_eq!(offsets(&data), [sent as u64]);
        assert_eq!(data.used("/"), (sent as u64, 1));
        let mut upload = resume(&data, "/a", sized(SIZE));
        assert_eq!(
            upload.prefix(),
            Some(Digest::compute(Algorithm::Blake3, &all[..sent]))
        );
        upload.write(&all[sent..]).expect("room");
        // And killed again: the old record holds until there is a new one.
        data = crash(data, [upload]);
        assert_eq!(offsets(&data), [sent as u64]);
        let mut upload = resume(&data, "/a", sized(SIZE));
        upload.write(&all[sent..]).expect("room");
        upload
            .commit(Some(Digest::compute(Algorithm::Blake3, &all)))
            .expect("whole");
        assert!(data.get("/a").expect("there") == all);
        assert_nothing_kept(&data);
        data.remove("/a").expect("removed");
    }
}

#[test]
fn a_partial_upload_survives_a_restart_and_a_missing_home_is_not_created() {
    let data = TestStore::new();
    let bob = data
        .store
        .home("bob", SpaceLimits::default())
        .expect("a home");
    let bobs = View::new(&data.store, bob, Vec::new());
    let mut upload = bobs.upload(&at("/b"), sized(SIZE)).expect("room");
    upload.write(&content(1)).expect("room");
    assert!(upload.keep().expect("kept"));
    assert!(
        partly(&data, "/a", &content(0), 100_000)
            .keep()
            .expect("kept")
    );
    drop(bobs);
    fs::remove_dir(data.data("homes/bob")).expect("removed");
    let data = restart(data);
    assert_eq!(offsets(&data), [100_000]);
    assert_eq!((data.used("/"), data.staged()), ((100_000, 1), 2));
    assert!(!data.data("homes/bob").exists());
}

#[test]
fn an_upload_of_unknown_size_can_be_resumed() {
    let data = TestStore::with_bytes(1_000_000);
    let all = content(0);
    let mut upload = data
        .view
        .upload(&at("/pipe"), unsized_upload())
        .expect("room");
    upload.write(&all[..120_000]).expect("room");
    assert!(upload.keep().expect("kept"));
    assert_eq!(data.view.uploads().expect("open")[0].size, None);
    let data = restart(data);
    let mut upload = resume(&data, "/pipe", unsized_upload());
    assert_eq!(upload.written(), 120_000);
    upload.write(&all[120_000..]).expect("room");
    assert_eq!(data.used("/"), (SIZE as u64, 1));
    upload.commit(None).expect("whole");
    assert!(data.get("/pipe").expect("there") == all);
    assert_nothing_kept(&data);
}

#[test]
fn an_upload_accepts_no_bytes_before_its_prefix_is_hashed() {
    let data = TestStore::new();
    let all = content(0);
    assert!(partly(&data, "/a", &all, 100_000).keep().expect("kept"));
    let begun = begin(&data, "/a", sized(SIZE));
    let Ok(BegunUpload::Upload(upload)) = begun else {
        panic!("{begun:?}");
    };
    let mut early = *upload;
    assert!(early.prefix().is_none());
    assert!(early.hash_prefix(10).is_ok_and(|all| !all));
    // Cut off once more in the middle of that, it is kept as it was.
    assert!(early.keep().expect("kept"));
    let begun = begin(&data, "/a", sized(SIZE));
    let Ok(BegunUpload::Upload(mut early)) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!(early.written(), 100_000);
    assert_fails!(early.write(b"x"), StorageError::Io { .. });
    drop(early);
    assert_nothing_kept(&data);
}

#[test]
fn the_floor_is_checked_during_an_upload_and_the_message_says_how_full_the_disk_is() {
    let data = TestStore::new();
    let mut known = partly(&data, "/a", &content(0), 100_000);
    let mut unknown = data.view.upload(&at("/b"), unsized_upload()).expect("room");
    // No disk has so much, and a hundredth of this one is free enough: nothing changes.
    data.store.set(StoreSettings {
        free_space_floor: u64::MAX,
        ..StoreSettings::default()
    });
    checkpoint(&mut known);
    let piece = vec![7; 1 << 20];
    for _ in 0..9 {
        unknown.write(&piece).expect("room");
    }
    let more = data
        .home
        .staging
        .check_free(SpaceCount::bytes(1 << 60), &at("/c"));
    let Err(
        error @ StorageError::NoSpace {
            disk_use: Some(_), ..
        },
    ) = more
    else {
        panic!("{more:?}");
    };
    let text = error.to_string();
    assert!(
        text.starts_with("no space left on the server for /c: ")
            && text.contains("are free on its disk"),
        "{text}"
    );
}

#[test]
fn an_upload_that_is_suspended_during_its_commit_is_kept() {
    let data = TestStore::with_bytes(1_000_000);
    let all = content(0);
    let upload = partly(&data, "/a", &all, SIZE);
    let view = data.view.clone();
    data.home.staging.sync_hook.then(move || {
        view.suspend();
        Ok(())
    });
    assert_fails!(upload.commit(None), StorageError::Suspended { .. });
    data.view.set(Arc::clone(&data.home), Vec::new());
    assert_eq!(offsets(&data), [SIZE as u64]);
    assert!(data.names("/").is_empty());
    let upload = resume(&data, "/a", sized(SIZE));
    upload.commit(None).expect("whole");
    assert!(data.get("/a").expect("there") == all);
    assert_nothing_kept(&data);
}

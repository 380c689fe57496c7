//! Partial uploads: kept, found again after a crash, resumed, and charged exactly.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::storage::local::space_count::SpaceCount;
use crate::storage::local::upload::record;
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

/// Makes a checkpoint now, whatever the time is.
fn checkpoint(upload: &mut Upload) {
    while upload.checkpoint_due().expect("something unsafe") > Duration::ZERO {
        std::thread::yield_now();
    }
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
fn a_small_upload_has_no_record_and_is_not_kept() {
    let data = TestStore::new();
    let upload = partly(&data, "/a", &content(0), 65_535);
    assert_eq!(upload.checkpoint_due(), None);
    assert_eq!(data.staged(), 1);
    assert!(!upload.keep().expect("no failure"));
    assert_nothing_kept(&data);
    let mut upload = partly(&data, "/a", &content(0), SIZE);
    assert!(
        upload.checkpoint_due() > Some(Duration::ZERO),
        "not at once"
    );
    assert!(upload.begin_checkpoint().is_none());
    upload.commit(None).expect("whole");
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
fn a_torn_or_foreign_record_and_bytes_that_do_not_match_are_deleted() {
    type Spoil = fn(bytes: &Path, record: &Path);
    let spoil: [(&str, Spoil); 7] = [
        ("a torn first line", |_, record| {
            let text = fs::read(record).expect("there");
            fs::write(record, &text[..50]).expect("written");
        }),
        ("no progress", |_, record| {
            let text = fs::read_to_string(record).expect("there");
            let first = text.lines().next().expect("a line");
            fs::write(record, format!("{first}\n")).expect("written");
        }),
        ("garbage", |_, record| {
            fs::write(record, [0xff; 4000]).expect("written");
        }),
        ("a huge record", |_, record| {
            let file = fs::File::options().write(true).open(record).expect("there");
            file.set_len(1 << 30).expect("grown");
        }),
        ("a link", |_, record| {
            fs::rename(record, record.with_extension("elsewhere")).expect("moved");
            std::os::unix::fs::symlink(record.with_extension("elsewhere"), record).expect("made");
        }),
        ("another file of the name", |bytes, _| {
            let copy = fs::read(bytes).expect("there");
            let other = bytes.with_extension("other");
            fs::write(&other, copy).expect("written");
            fs::rename(other, bytes).expect("moved");
        }),
        ("fewer bytes", |bytes, _| {
            let file = fs::File::options().write(true).open(bytes).expect("there");
            file.set_len(99_999).expect("cut");
        }),
    ];
    for (what, spoil) in spoil {
        let data = TestStore::new();
        let upload = partly(&data, "/a", &content(0), 100_000);
        let bytes = data.data("staging").join(upload.id());
        assert!(upload.keep().expect("kept"));
        let record = bytes.with_extension("record");
        assert!(bytes.exists() && record.exists());
        spoil(&bytes, &record);
        let data = restart(data);
        assert_eq!(offsets(&data), [0_u64; 0], "{what}");
        assert_nothing_kept(&data);
    }
}

#[test]
fn a_torn_end_of_a_record_loses_one_checkpoint_only() {
    let data = TestStore::new();
    let all = content(0);
    let mut upload = partly(&data, "/a", &all, 70_000);
    checkpoint(&mut upload);
    upload.write(&all[70_000..150_000]).expect("room");
    checkpoint(&mut upload);
    let record = data
        .data("staging")
        .join(upload.id())
        .with_extension("record");
    let text = fs::read(&record).expect("there");
    fs::write(&record, &text[..text.len() - 1]).expect("written");
    let data = crash(data, [upload]);
    assert_eq!(offsets(&data), [70_000]);
    let upload = resume(&data, "/a", sized(SIZE));
    // What is noted next does not end up behind the torn line.
    assert!(upload.keep().expect("kept"));
    assert_eq!(offsets(&restart(data)), [70_000]);
}

#[test]
fn a_replaced_file_is_never_taken_for_the_upload() {
    let data = TestStore::new();
    let old = content(9);
    data.put("/a", &old).expect("put");
    let mut upload = partly(&data, "/a", &content(0), SIZE);
    checkpoint(&mut upload);
    let (staging, home) = (data.data("staging"), data.on_disk("a"));
    let bytes = staging.join(upload.id());
    // As a commit leaves it that is killed right behind its exchange.
    let between = staging.join("between");
    fs::rename(&home, &between).expect("moved");
    fs::rename(&bytes, &home).expect("moved");
    fs::rename(&between, &bytes).expect("moved");
    let data = crash(data, [upload]);
    assert!(data.get("/a").expect("there") == content(0));
    assert_nothing_kept(&data);
}

#[test]
fn one_partial_upload_is_kept_per_home_path_and_size() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.mkdir("/team");
    let all = content(0);
    assert!(partly(&data, "/a", &all, 100_000).keep().expect("kept"));
    assert!(
        partly(&data, "/team/a", &all, 110_000)
            .keep()
            .expect("kept")
    );
    assert_eq!(data.used("/team"), (110_000, 1));
    let other = |path: &str, options| resume(&data, path, options).written();
    assert_eq!(other("/b", sized(SIZE)), 0);
    assert_eq!(other("/a", sized(SIZE + 1)), 0);
    assert_eq!(other("/a", unsized_upload()), 0);
    let bob = data
        .store
        .home("bob", SpaceLimits::default())
        .expect("a home");
    let mount = Mount {
        name: "team".to_owned(),
        space: data
            .store
            .folder("team", SpaceLimits::default())
            .expect("a folder"),
        rights: Rights::ALL,
    };
    let bobs = View::new(&data.store, bob, vec![mount]);
    assert!(bobs.uploads().expect("open").is_empty());
    for path in ["/a", "/team/a"] {
        let begun = bobs.begin(&at(path), sized(SIZE), &session("bob"), true);
        assert!(matches!(begun, Ok(BegunUpload::Upload(upload)) if upload.written() == 0));
    }
    let id = &data.view.uploads().expect("open")[0].id;
    assert!(
        !bobs.discard(id).expect("open")
            && data.view.discard(id).expect("open")
            && !data.view.discard(id).expect("open")
    );
    assert_eq!(
        (offsets(&data), data.used("/team")),
        (vec![100_000], (0, 0))
    );
    assert_eq!(resume(&data, "/a", sized(SIZE)).written(), 100_000);
    assert_nothing_kept(&data);
}

#[test]
fn a_new_account_with_an_old_name_has_no_partial_uploads() {
    for restarted in [false, true] {
        let data = TestStore::new();
        assert!(
            partly(&data, "/a", &content(0), 100_000)
                .keep()
                .expect("kept")
        );
        set_home_aside(&data.data(""), "alice").expect("set aside");
        let data = if restarted {
            restart(data)
        } else {
            let home = data
                .store
                .home("alice", SpaceLimits::default())
                .expect("a home");
            let view = View::new(&data.store, Arc::clone(&home), Vec::new());
            TestStore { home, view, ..data }
        };
        assert_eq!(data.used("/"), (0, 0));
        assert!(data.view.uploads().expect("open").is_empty());
        assert_eq!(resume(&data, "/a", sized(SIZE)).written(), 0);
        assert_eq!(data.store.expire_uploads(None), usize::from(!restarted));
        assert_nothing_kept(&data);
    }
}

#[test]
fn partial_uploads_that_are_too_old_or_too_many_are_deleted_and_release_their_quota() {
    let data = TestStore::new();
    data.store.set(StoreSettings {
        max_partial_uploads: 2,
        ..StoreSettings::default()
    });
    for (number, path) in ["/a", "/b", "/c"].into_iter().enumerate() {
        let upload = partly(&data, path, &content(0), 100_000 + number);
        assert!(upload.keep().expect("kept"));
    }
    assert_eq!(offsets(&data), [100_002, 100_001]);
    assert_eq!((data.used("/"), data.staged()), ((200_003, 2), 4));
    assert_eq!(data.store.expire_uploads(None), 0);
    data.store.set(StoreSettings {
        max_partial_uploads: 1,
        ..StoreSettings::default()
    });
    assert_eq!(data.store.expire_uploads(None), 1);
    assert_eq!(offsets(&data), [100_002]);
    data.store.set(StoreSettings {
        partial_upload_retention: Duration::from_nanos(1),
        ..StoreSettings::default()
    });
    assert!(data.view.uploads().expect("open").is_empty());
    assert_eq!(resume(&data, "/c", sized(SIZE)).written(), 0);
    assert_eq!(data.store.expire_uploads(None), 1);
    assert_nothing_kept(&data);
}

#[test]
fn an_old_record_is_deleted_and_one_of_the_future_counts_as_new() {
    for (year, kept) in [("2001", 0), ("2999", 1)] {
        let data = TestStore::new();
        let upload = partly(&data, "/a", &content(0), 100_000);
        let record = data
            .data("staging")
            .join(upload.id())
            .with_extension("record");
        assert!(upload.keep().expect("kept"));
        let text = fs::read_to_string(&record).expect("there");
        let this_year = jiff::Timestamp::now().strftime("%Y").to_string();
        let text = text.replace(&format!("\"{this_year}-"), &format!("\"{year}-"));
        fs::write(&record, text).expect("written");
        let data = restart(data);
        assert_eq!(offsets(&data).len(), 1);
        assert_eq!(data.store.expire_uploads(None), 0);
        let now = Some(jiff::Timestamp::now());
        assert_eq!(data.store.expire_uploads(now), 1 - kept);
        assert_eq!(data.staged(), 2 * kept);
    }
}

#[test]
fn a_partial_upload_that_lacks_space_to_resume_is_kept() {
    let data = TestStore::with_bytes(250_000);
    let all = content(0);
    assert!(partly(&data, "/a", &all, 100_000).keep().expect("kept"));
    data.put("/other", &all[..60_000]).expect("room");
    assert_fails!(
        begin(&data, "/a", sized(SIZE)),
        StorageError::QuotaExceeded { used: 160_000, .. }
    );
    assert_eq!(
        (offsets(&data), data.used("/")),
        (vec![100_000], (160_000, 2))
    );
    data.mkdir("/dir");
    assert!(
        partly(&data, "/dir/a", &all[..70_000], 70_000)
            .keep()
            .expect("kept")
    );
    data.remove("/dir").expect("removed");
    assert_fails!(
        begin(&data, "/dir/a", sized(70_000)),
        StorageError::NotFound { .. }
    );
    assert_eq!(offsets(&data), [70_000, 100_000]);
    data.mkdir("/dir");
    data.remove("/other").expect("removed");
    let upload = resume(&data, "/dir/a", sized(70_000));
    upload.commit(None).expect("whole");
    assert!(data.get("/dir/a").expect("there") == all[..70_000]);
    assert!(
        data.view
            .discard(&data.view.uploads().expect("open")[0].id)
            .expect("open")
    );
    assert_nothing_kept(&data);
}

#[test]
fn a_checkpoint_that_fails_to_sync_ends_the_upload() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    for works in 0..4 {
        let mut upload = partly(&data, "/a", &content(0), 100_000);
        while upload.checkpoint_due() != Some(Duration::ZERO) {
            std::thread::yield_now();
        }
        for _ in 0..works {
            data.home.staging.sync_hook.then(|| Ok(()));
        }
        data.home.staging.sync_hook.then(|| Err(Errno::IO.into()));
        let checkpoint = upload.begin_checkpoint().expect("due");
        let result: Result<(), StorageError> = checkpoint.run();
        match result {
            Err(StorageError::Io { .. }) => assert!(works < 3),
            other => {
                // The data, the record and the directory were all there is to sync.
                assert!(works == 3 && other.is_ok(), "{other:?}");
                assert!(data.home.staging.record_sync(Ok(())).is_err());
            }
        }
        assert!(upload.begin_checkpoint().is_none(), "it is not asked again");
        drop(upload);
        assert_eq!(data.get("/a").expect("there"), b"old");
        data.assert_exact("/", "homes/alice");
    }
    let upload = partly(&data, "/a", &content(0), 100_000);
    data.home.staging.sync_hook.then(|| Err(Errno::IO.into()));
    assert_fails!(upload.keep(), StorageError::Io { .. });
    assert!(data.store.is_degraded());
    assert_nothing_kept(&data);
}

#[test]
fn a_checkpoint_may_end_after_its_upload() {
    let data = TestStore::new();
    for committed in [false, true] {
        let mut upload = partly(&data, "/a", &content(0), SIZE);
        while upload.checkpoint_due() != Some(Duration::ZERO) {
            std::thread::yield_now();
        }
        let checkpoint = upload.begin_checkpoint().expect("due");
        assert_eq!(upload.checkpoint_due(), None, "one at a time");
        if committed {
            upload.commit(None).expect("whole");
        } else {
            drop(upload);
        }
        checkpoint.run().expect("nothing to do any more");
        assert_nothing_kept(&data);
    }
}

#[test]
fn many_checkpoints_keep_the_record_short() {
    let data = TestStore::new();
    let staging = &data.home.staging;
    let mut upload = partly(&data, "/a", &content(0), 100_000);
    checkpoint(&mut upload);
    let name = format!("{}.record", upload.id());
    let (record, _) = record::read(staging, upload.id()).expect("sound");
    let record_file = record::RecordFile::resumed(staging, upload.id());
    for offset in 0..2000 {
        record_file.write(&record, offset).expect("written");
        let length = fs::metadata(data.data("staging").join(&name))
            .expect("there")
            .len();
        assert!(length < 64 * 1024, "{length}");
        let (_, progress) = record::read(staging, upload.id()).expect("sound");
        assert_eq!(progress.offset, offset);
    }
}

#[test]
fn a_commit_deletes_the_partial_upload_of_its_path() {
    let data = TestStore::new();
    let all = content(0);
    assert!(partly(&data, "/a", &all, 100_000).keep().expect("kept"));
    assert!(
        partly(&data, "/a", &all[..90_000], 80_000)
            .keep()
            .expect("kept")
    );
    assert!(partly(&data, "/b", &all, 70_000).keep().expect("kept"));
    data.put("/a", b"small").expect("put");
    assert_eq!(offsets(&data), [70_000]);
    assert_eq!(data.used("/"), (70_005, 2));
    assert!(partly(&data, "/a", &all, 100_000).keep().expect("kept"));
    data.put_if("/a", b"another", IfExists::Rename)
        .expect("put");
    assert_eq!(offsets(&data), [100_000, 70_000]);
    data.put_if("/a", &all, IfExists::Rename).expect("put");
    assert_eq!(offsets(&data), [70_000]);
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

#[test]
fn a_half_written_record_of_a_killed_server_is_ignored() {
    let data = TestStore::new();
    let all = content(0);
    let mut upload = partly(&data, "/a", &all, 100_000);
    checkpoint(&mut upload);
    let new = data.data(&format!("staging/{}.record.new", upload.id()));
    fs::write(&new, b"{").expect("written");
    let data = crash(data, [upload]);
    assert!(!new.exists());
    let mut upload = resume(&data, "/a", sized(SIZE));
    // One that could not be removed then.
    fs::write(&new, b"{").expect("written");
    upload.write(&all[100_000..]).expect("room");
    checkpoint(&mut upload);
    assert!(!new.exists());
    let data = crash(data, [upload]);
    assert_eq!(offsets(&data), [SIZE as u64]);
}

#[test]
fn a_home_counts_as_removed_only_if_it_is_known_to_be_absent() {
    let data = TestStore::new();
    assert!(!data.store.is_gone(data.home.id()));
    fs::remove_dir(data.on_disk("")).expect("removed");
    assert!(data.store.is_gone(data.home.id()));
}

//! The records of partial uploads, and their checkpoints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::storage::local::upload::record;
use crate::storage::tests::resume::{
    SIZE, assert_nothing_kept, checkpoint, content, crash, offsets, partly, restart, resume,
};
use crate::storage::tests::*;

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
fn a_checkpoint_that_fails_to_sync_ends_the_upload() {
    let data = TestStore::new();
    data.put("/a", b"old").expect("put");
    for works in 0..4 {
        let mut upload = partly(&data, "/a", &content(0), 100_000);
        upload.expire_checkpoint_interval();
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

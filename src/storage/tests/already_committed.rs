//! Uploads that were committed although the client did not get the reply.

use std::fs;

use crate::protocol::Hasher;
use crate::storage::tests::resume::{SIZE, begin, content, session};
use crate::storage::tests::*;

fn already(
    data: &TestStore,
    path: &str,
    options: UploadOptions,
    who: &str,
) -> Option<AlreadyCommitted> {
    match data.view.begin(&at(path), options, &session(who), true) {
        Ok(BegunUpload::AlreadyCommitted(there)) => Some(*there),
        Ok(BegunUpload::Upload(upload)) => {
            assert_eq!(upload.written(), 0);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_commit_whose_answer_was_lost_is_answered_as_the_first() {
    let data = TestStore::new();
    let all = content(0);
    let first = data.put("/a", &all).expect("put");
    for if_exists in [IfExists::Replace, IfExists::Fail] {
        let options = UploadOptions {
            if_exists,
            ..sized(SIZE)
        };
        let there = already(&data, "/a", options, "later").expect("there");
        assert_eq!((there.size(), there.digest()), (SIZE as u64, first.digest));
        assert_eq!(there.confirm(Some(first.digest)).expect("the same"), first);
        let there = already(&data, "/a", options, "later").expect("there");
        let other = Digest::compute(Algorithm::Sha256, b"another file");
        assert_fails!(
            there.confirm(Some(other)),
            StorageError::DigestMismatch { .. }
        );
        let there = already(&data, "/a", options, "later").expect("there");
        let mut hasher = Hasher::new(Algorithm::Md5);
        hasher.update(&all);
        assert!(there.confirm(Some(hasher.finish())).is_ok());
    }
    // It must be that file, whole: by size, time and digest.
    let time = UploadOptions {
        modified: Some("2001-02-03T04:05:06Z".parse().expect("a time")),
        ..sized(SIZE)
    };
    let algorithm = UploadOptions {
        algorithm: Algorithm::Sha256,
        ..sized(SIZE)
    };
    for options in [time, algorithm, sized(SIZE - 1), unsized_upload()] {
        assert!(already(&data, "/a", options, "later").is_none());
    }
    let there = already(&data, "/a", sized(SIZE), "later").expect("there");
    data.put("/a", &content(1)).expect("put");
    assert_fails!(there.confirm(None), StorageError::Changed { .. });
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_file_that_lost_its_time_or_its_digest_is_not_taken_for_the_upload() {
    let data = TestStore::new();
    data.put("/a", &content(0)).expect("put");
    fs::write(data.on_disk("a"), content(1)).expect("written");
    assert!(already(&data, "/a", sized(SIZE), "later").is_none());
    data.mkdir("/dir");
    assert_fails!(
        begin(&data, "/dir", sized(0)),
        StorageError::IsADirectory { .. }
    );
    assert_fails!(
        begin(&data, "/no/a", sized(0)),
        StorageError::NotFound { .. }
    );
}

#[test]
fn a_renamed_commit_is_answered_again_once_and_to_another_session() {
    let data = TestStore::new();
    data.put("/a.txt", b"first").expect("put");
    let options = UploadOptions {
        if_exists: IfExists::Rename,
        ..sized(SIZE)
    };
    let begun = data
        .view
        .begin(&at("/a.txt"), options, &session("one"), true);
    let Ok(BegunUpload::Upload(mut upload)) = begun else {
        panic!("{begun:?}");
    };
    upload.write(&content(0)).expect("room");
    let committed = upload.commit(None).expect("whole");
    assert_eq!(committed.path, at("/a (1).txt"));
    assert!(already(&data, "/a.txt", options, "one").is_none());
    let (there, twice) = (
        already(&data, "/a.txt", options, "two").expect("known"),
        already(&data, "/a.txt", options, "three").expect("known still"),
    );
    assert_eq!(
        there.confirm(Some(committed.digest)).expect("the same"),
        committed
    );
    assert_fails!(twice.confirm(None), StorageError::Changed { .. });
    assert!(already(&data, "/a.txt", options, "two").is_none());
    assert_eq!(data.names("/"), ["a (1).txt", "a.txt"]);
}

#[test]
fn a_member_who_may_not_read_learns_only_of_their_own_commit() {
    let data = TestStore::new().mount("drop", Rights::DROP, SpaceLimits::default());
    let options = UploadOptions {
        if_exists: IfExists::Fail,
        ..sized(SIZE)
    };
    fs::create_dir_all(data.data("folders/drop")).expect("made");
    let begun = data
        .view
        .begin(&at("/drop/a"), options, &session("one"), true);
    let Ok(BegunUpload::Upload(mut upload)) = begun else {
        panic!("{begun:?}");
    };
    upload.write(&content(0)).expect("room");
    let committed = upload.commit(None).expect("whole");
    let there = already(&data, "/drop/a", options, "two").expect("their own");
    assert_eq!(there.confirm(None).expect("the same"), committed);
    let again = data
        .view
        .begin(&at("/drop/a"), options, &session("three"), true);
    assert_fails!(again, StorageError::Exists { .. });
}

#[test]
fn a_member_who_may_not_overwrite_learns_only_of_their_own_commit() {
    let writing = "list,read,write".parse().expect("rights");
    for rights in [Rights::DROP, writing] {
        let data = TestStore::new().mount("in", rights, SpaceLimits::default());
        fs::create_dir_all(data.data("folders/in")).expect("made");
        fs::write(data.data("folders/in/theirs"), content(0)).expect("written");
        assert_eq!(sized(SIZE).if_exists, IfExists::Replace);
        let begin = |path, who| data.view.begin(&at(path), sized(SIZE), &session(who), true);
        assert_fails!(begin("/in/theirs", "one"), StorageError::Denied { .. });
        let Ok(BegunUpload::Upload(mut upload)) = begin("/in/a", "one") else {
            panic!("not begun");
        };
        upload.write(&content(0)).expect("room");
        let committed = upload.commit(None).expect("whole");
        assert_fails!(begin("/in/a", "one"), StorageError::Denied { .. });
        let there = already(&data, "/in/a", sized(SIZE), "two").expect("their own");
        let digest = Some(committed.digest);
        assert_eq!(there.confirm(digest).expect("the same"), committed);
        assert_fails!(begin("/in/a", "three"), StorageError::Denied { .. });
    }
}

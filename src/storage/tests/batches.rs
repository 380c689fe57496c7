//! Small files that come to the disk together.

use std::io;

use bytes::Bytes;
use proptest::prelude::*;
use rustix::io::Errno;

use crate::storage::tests::*;

fn small(path: &str, content: &[u8]) -> BufferedUpload {
    BufferedUpload {
        path: at(path),
        options: sized(content.len()),
        content: vec![Bytes::copy_from_slice(content)],
        expected: Some(Digest::compute(Algorithm::Blake3, content)),
    }
}

fn with(upload: BufferedUpload, if_exists: IfExists) -> BufferedUpload {
    let options = UploadOptions {
        if_exists,
        ..upload.options
    };
    BufferedUpload { options, ..upload }
}

fn in_new_dirs(upload: BufferedUpload) -> BufferedUpload {
    let options = UploadOptions {
        parents: true,
        ..upload.options
    };
    BufferedUpload { options, ..upload }
}

impl TestStore {
    fn put_all(
        &self,
        uploads: impl IntoIterator<Item = BufferedUpload>,
    ) -> Vec<Result<CommittedUpload, StorageError>> {
        self.view.commit_all(
            uploads.into_iter().collect(),
            &"session".into(),
            MAX_BATCH_DESCRIPTORS,
        )
    }
}

fn paths(outcomes: &[Result<CommittedUpload, StorageError>]) -> Vec<String> {
    let path = |outcome: &Result<CommittedUpload, _>| match outcome {
        Ok(done) => done.committed.path.to_string(),
        Err(_) => "-".to_owned(),
    };
    outcomes.iter().map(path).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "one of the outcomes of a sync")]
fn works() -> io::Result<()> {
    Ok(())
}

fn fails() -> io::Result<()> {
    Err(Errno::IO.into())
}

#[test]
fn each_is_what_a_put_by_itself_would_have_made_it() {
    let data = TestStore::with_bytes(1000);
    let modified = "2026-03-01T12:00:00.123Z".parse().expect("a time");
    let mut first = small("/a", b"one");
    first.options.modified = Some(modified);
    let mut second = small("/b", b"");
    second.content = Vec::new();
    let mut third = small("/c", b"abcdef");
    third.content = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")];
    let done = data.put_all([first, second, third]);
    for (outcome, path, content) in [
        (&done[0], "/a", &b"one"[..]),
        (&done[1], "/b", b""),
        (&done[2], "/c", b"abcdef"),
    ] {
        let committed = &outcome.as_ref().expect("committed").committed;
        let info = data.view.stat(&at(path)).expect("there");
        assert_eq!((committed.path.as_str(), committed.size), (path, info.size));
        assert_eq!(Some(&committed.version), info.version.as_ref());
        assert_eq!(Some(committed.digest), info.digest);
        assert_eq!(data.get(path).expect("there"), content);
    }
    let info = data.view.stat(&at("/a")).expect("there");
    assert_eq!(info.modified, modified);
    data.assert_exact("/", "homes/alice");
}

#[test]
fn nothing_is_in_its_place_before_all_are_on_the_disk_and_two_syncs_are_enough_for_a_directory() {
    let data = TestStore::new();
    data.put("/0", b"old").expect("put");
    let names = data.on_disk("");
    let count = move || std::fs::read_dir(&names).expect("readable").count();
    let old = data.on_disk("0");
    let before = move || {
        assert_eq!(count(), 1);
        assert_eq!(std::fs::read(&old).expect("there"), b"old");
        Ok(())
    };
    let names = data.on_disk("");
    let after = move || {
        assert_eq!(std::fs::read_dir(&names).expect("readable").count(), 10);
        Ok(())
    };
    let third = || panic!("a third sync");
    data.home
        .staging
        .sync_hook
        .then(before)
        .then(after)
        .then(third);
    let done = data.put_all((0..10).map(|number| small(&format!("/{number}"), b"new")));
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(data.get("/0").expect("there"), b"new");
}

#[test]
fn a_sync_that_fails_discards_all_that_waited_for_it_and_leaves_what_was_there() {
    for syncs_before in 0..2 {
        let data = TestStore::with_bytes(1000);
        data.put("/a", b"old").expect("put");
        assert!(!data.store.is_degraded());
        if syncs_before == 1 {
            data.home.staging.sync_hook.then(works);
        }
        data.home.staging.sync_hook.then(fails);
        // The same name twice: the second is taken back to the first, and that to the old.
        let uploads = [
            small("/a", b"new"),
            small("/b", b"new"),
            small("/a", b"newer"),
            with(small("/a", b"beside"), IfExists::Rename),
            in_new_dirs(small("/deep/er/c", b"new")),
        ];
        let done = data.put_all(uploads);
        assert_eq!(paths(&done), ["-"; 5]);
        for outcome in done {
            assert_fails!(outcome, StorageError::Io { .. });
        }
        assert!(data.store.is_degraded());
        assert_eq!(data.get("/a").expect("there"), b"old");
        let names = data.names("/");
        assert!(!names.iter().any(|name| name == "b" || name == "a (1)"));
        assert_fails!(data.get("/deep/er/c"), StorageError::NotFound { .. });
        data.assert_exact("/", "homes/alice");
        let done = data.put_all([small("/a", b"newest")]);
        assert_eq!(paths(&done), ["/a"], "the next is another's");
    }
}

#[test]
fn an_error_of_one_file_in_a_batch_leaves_the_others_alone() {
    let data = TestStore::with_bytes(1000);
    data.mkdir("/dir");
    data.put("/there", b"old").expect("put");
    let mut wrong = small("/wrong", b"what was sent");
    wrong.content = vec![Bytes::from_static(b"what came 123")];
    let mut short = small("/short", b"all of it");
    short.content = vec![Bytes::from_static(b"all")];
    let done = data.put_all([
        small("/good", b"1"),
        wrong,
        short,
        small("/dir", b"2"),
        small("/missing/x", b"3"),
        with(small("/there", b"4"), IfExists::Fail),
        small("/there/x", b"5"),
        small("/", b"6"),
        small("/fine", b"7"),
    ]);
    assert_eq!(
        paths(&done),
        ["/good", "-", "-", "-", "-", "-", "-", "-", "/fine"]
    );
    let mut errors = done.into_iter().filter_map(Result::err);
    let mut next = || errors.next().expect("another");
    assert!(matches!(next(), StorageError::DigestMismatch { .. }));
    assert!(matches!(next(), StorageError::SizeMismatch { .. }));
    assert!(matches!(next(), StorageError::IsADirectory { .. }));
    assert!(matches!(next(), StorageError::NotFound { .. }));
    assert!(matches!(next(), StorageError::Exists { .. }));
    assert!(matches!(next(), StorageError::NotADirectory { .. }));
    assert!(matches!(next(), StorageError::IsADirectory { .. }));
    assert_eq!(data.get("/there").expect("there"), b"old");
    assert!(!data.store.is_degraded());
    data.assert_exact("/", "homes/alice");
}

#[test]
fn of_two_with_the_same_name_the_last_stays_whole_and_renamed_ones_get_names_of_their_own() {
    let data = TestStore::with_bytes(1000);
    let done = data.put_all([small("/a", b"first"), small("/a", b"second")]);
    assert_eq!(paths(&done), ["/a", "/a"]);
    assert_eq!(data.get("/a").expect("there"), b"second");
    let rename = |content| with(small("/a", content), IfExists::Rename);
    let done = data.put_all([rename(b"x"), rename(b"y")]);
    assert_eq!(paths(&done), ["/a (1)", "/a (2)"]);
    assert_eq!(data.get("/a (1)").expect("there"), b"x");
    assert_eq!(data.get("/a (2)").expect("there"), b"y");
    let new = |content| with(small("/n", content), IfExists::Fail);
    let done = data.put_all([new(b"1"), new(b"2")]);
    assert_eq!(paths(&done), ["/n", "-"]);
    assert_eq!(data.get("/n").expect("there"), b"1");
    data.assert_exact("/", "homes/alice");
}

#[test]
fn a_quota_that_is_reached_midway_refuses_those_that_do_not_fit_and_takes_those_that_do() {
    let data = TestStore::with_bytes(100);
    let done = data.put_all([
        small("/a", &[1; 60]),
        small("/b", &[2; 60]),
        small("/c", &[3; 40]),
        small("/d", b"4"),
    ]);
    assert_eq!(paths(&done), ["/a", "-", "/c", "-"]);
    for outcome in done.into_iter().filter(Result::is_err) {
        assert_fails!(outcome, StorageError::QuotaExceeded { .. });
    }
    data.assert_exact("/", "homes/alice");
}

#[test]
fn many_files_of_an_almost_full_space_can_be_replaced_together() {
    let data = TestStore::with_bytes(100);
    let all = |byte: u8| (0..9).map(move |number| small(&format!("/{number}"), &[byte; 10]));
    assert!(data.put_all(all(1)).iter().all(Result::is_ok));
    assert!(data.put_all(all(2)).iter().all(Result::is_ok));
    for number in 0..9 {
        assert_eq!(data.get(&format!("/{number}")).expect("there"), [2; 10]);
    }
    data.assert_exact("/", "homes/alice");
}

#[test]
fn files_for_several_spaces_go_together_each_counted_where_it_is() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    let done = data.put_all([
        small("/own", b"1"),
        small("/team/theirs", b"22"),
        small("/own too", b"333"),
    ]);
    assert_eq!(paths(&done), ["/own", "/team/theirs", "/own too"]);
    data.assert_exact("/", "homes/alice");
    data.assert_exact("/team", "folders/team");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_batch_leaves_what_the_same_puts_leave_one_by_one(
        puts in prop::collection::vec((0..4_u8, 0..3_u8, 0..30_usize), 1..12),
        limit in 20..200_u64,
    ) {
        let (one, all) = (TestStore::with_bytes(limit), TestStore::with_bytes(limit));
        let kinds = [IfExists::Replace, IfExists::Fail, IfExists::Rename];
        let content = |length: usize, index: usize| vec![b'a' + u8::try_from(index).expect("few"); length];
        let uploads: Vec<_> = puts.iter().enumerate().map(|(index, (name, kind, length))| {
            let content = content(*length, index);
            with(small(&format!("/f{name}"), &content), kinds[usize::from(*kind)])
        }).collect();
        // Where all fit whatever the order, the outcome is the same; else the quota holds.
        let total: usize = puts.iter().map(|(_, _, length)| length).sum();
        let together = all.put_all(uploads);
        if total as u64 <= limit {
            for (index, (name, kind, length)) in puts.iter().enumerate() {
                let content = content(*length, index);
                let put = one.put_if(&format!("/f{name}"), &content, kinds[usize::from(*kind)]);
                let (put, batched) = (put.ok(), together[index].as_ref().ok());
                prop_assert_eq!(
                    put.map(|put| (put.path, put.size, put.digest)),
                    batched.map(|done| {
                        let done = done.committed.clone();
                        (done.path, done.size, done.digest)
                    })
                );
            }
            prop_assert_eq!(one.names("/"), all.names("/"));
            for name in all.names("/") {
                let path = format!("/{name}");
                prop_assert_eq!(one.get(&path).expect("there"), all.get(&path).expect("there"));
            }
        }
        all.assert_exact("/", "homes/alice");
    }
}

//! Work that is under way checks the rights again: nothing is read, changed or acknowledged by a right
//! that is gone.

use std::cell::Cell;

use crate::storage::tests::*;

/// Alice with her home, the folder `team` with all rights, and a file in each.
fn with_team() -> TestStore {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.put("/own", b"own").expect("put");
    data.put("/team/old", b"old").expect("put");
    data
}

fn team(data: &TestStore, rights: Rights) -> Vec<Mount> {
    vec![Mount {
        name: "team".into(),
        space: data
            .store
            .folder("team", SpaceLimits::default())
            .expect("there"),
        rights,
    }]
}

/// Gives alice these rights in the folder.
fn grant(data: &TestStore, rights: Rights) {
    data.view.set(Arc::clone(&data.home), team(data, rights));
}

fn is_denied<T>(outcome: &Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Denied { .. }))
}

fn is_suspended<T>(outcome: &Result<T, StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Suspended { .. }))
}

fn names(data: &TestStore, dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(data.data(dir)).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort();
    names
}

fn begin(data: &TestStore, path: &str, bytes: &[u8]) -> Upload {
    let mut upload = data
        .view
        .upload(&at(path), sized(bytes.len()))
        .expect("begun");
    upload.write(bytes).expect("written");
    upload
}

/// A way to lose something, with its name.
type Loss = (&'static str, fn(&TestStore));

/// The ways to lose the folder, or the right to write and read there.
fn losses() -> [Loss; 4] {
    [
        ("grant revoked", |data| {
            data.view.set(Arc::clone(&data.home), Vec::new());
        }),
        ("rights taken", |data| {
            grant(data, "list".parse().expect("rights"));
        }),
        ("account closed", |data| data.view.revoke()),
        ("folder removed and added again", |data| {
            set_folder_aside(&data.data(""), "team").expect("set aside");
            grant(data, Rights::ALL);
        }),
    ]
}

#[test]
fn work_that_began_before_a_right_was_lost_ends_at_its_next_step() {
    for (how, lose) in losses() {
        let data = with_team();
        let mut half = data
            .view
            .upload(&at("/team/half"), sized(2))
            .expect("begun");
        half.write(b"1").expect("written");
        let whole = begin(&data, "/team/whole", b"whole");
        let replacing = begin(&data, "/team/old", b"new");
        let file = data.view.open(&at("/team/old"), None).expect("open");
        assert_eq!(file.read_at(0, 1).expect("read"), "o");
        lose(&data);
        assert!(is_denied(&half.write(b"2")), "{how}");
        assert!(is_denied(&whole.commit(None)), "{how}");
        assert!(is_denied(&replacing.commit(None)), "{how}");
        assert!(is_denied(&file.read_at(0, 1)), "{how}");
        assert!(is_denied(&file.check_access()), "{how}");
        drop((half, file));
        let set_aside = data.data("removed").exists();
        let dir = if set_aside {
            format!("removed/{}", names(&data, "removed")[0])
        } else {
            "folders/team".into()
        };
        assert_eq!(names(&data, &dir), ["old"], "{how}");
        let old = std::fs::read(data.data(&dir).join("old")).expect("there");
        assert_eq!(old, b"old", "{how}");
        if set_aside {
            assert!(names(&data, "folders/team").is_empty());
        }
    }
}

#[test]
fn a_copy_and_a_removal_that_run_end_when_the_right_is_lost() {
    for (how, lose) in losses() {
        for (from, to) in [("/team/old", "/copy"), ("/own", "/team/copy")] {
            let data = with_team();
            let asked = Cell::new(false);
            let stop = || {
                if !asked.replace(true) {
                    lose(&data);
                }
                false
            };
            let copied = data.view.copy(&at(from), &at(to), IfExists::Fail, &stop);
            assert!(asked.get() && is_denied(&copied), "{how}: {from}");
            assert!(!data.on_disk("copy").exists(), "{how}");
            assert!(!data.data("folders/team/copy").exists(), "{how}");
            assert_eq!(data.staged(), 0, "{how}");
        }
        let data = with_team();
        let stop = || {
            lose(&data);
            false
        };
        let removed = data.view.remove(&at("/team/old"), false, &stop);
        assert!(is_denied(&removed), "{how}");
    }
}

#[test]
fn without_the_right_to_overwrite_a_commit_under_a_free_name_succeeds() {
    let data = with_team();
    let new = begin(&data, "/team/new", b"new");
    let replacing = begin(&data, "/team/old", b"new");
    grant(&data, "list,read,write".parse().expect("rights"));
    new.commit(None).expect("allowed");
    assert!(is_denied(&replacing.commit(None)));
    assert_eq!(data.get("/team/old").expect("there"), b"old");
}

#[test]
fn while_a_view_is_suspended_everything_is_refused_and_what_began_goes_on_later() {
    let data = with_team();
    let mut upload = data.view.upload(&at("/team/new"), sized(2)).expect("begun");
    upload.write(b"1").expect("written");
    data.view.suspend();
    assert!(is_suspended(&upload.write(b"2")));
    assert!(is_suspended(&data.view.open(&at("/own"), None)));
    assert!(is_suspended(&data.view.stat(&at("/"))));
    assert!(is_suspended(&data.view.uploads()));
    assert!(is_suspended(&data.view.make_dir(&at("/d"), true, None)));
    assert!(is_suspended(&data.put("/small", b"x")));
    grant(&data, Rights::ALL);
    upload.write(b"2").expect("goes on");
    upload.commit(None).expect("goes on");
    assert_eq!(data.get("/team/new").expect("there"), b"12");
    data.view.revoke();
    grant(&data, Rights::ALL);
    assert!(
        is_denied(&data.view.open(&at("/own"), None)),
        "revoked for good"
    );
}

#[test]
fn nothing_is_acknowledged_in_a_folder_that_was_set_aside() {
    let data = with_team();
    let upload = begin(&data, "/team/new", b"new");
    // Nobody has told the view yet.
    set_folder_aside(&data.data(""), "team").expect("set aside");
    let is_gone = |outcome: Result<(), StorageError>| {
        assert!(
            matches!(outcome, Err(StorageError::NotFound { .. })),
            "{outcome:?}"
        );
    };
    is_gone(upload.commit(None).map(drop));
    is_gone(data.put("/team/put", b"x").map(drop));
    is_gone(data.view.make_dir(&at("/team/d"), false, None));
    is_gone(data.mv("/own", "/team/own", IfExists::Fail).map(drop));
    let small = BufferedUpload {
        path: at("/team/small"),
        options: sized(1),
        content: vec!["x".into()],
        expected: None,
    };
    let outcomes = data
        .view
        .commit_all(vec![small], &"session".into(), MAX_BATCH_DESCRIPTORS);
    for outcome in outcomes {
        is_gone(outcome.map(drop));
    }
}

#[test]
fn a_quota_error_hides_the_usage_from_a_member_who_may_not_list() {
    let limits = SpaceLimits {
        bytes: Some(1),
        files: None,
    };
    let data = TestStore::new().mount("inbox", Rights::DROP, limits);
    data.put("/own", b"xx").expect("no limit");
    let small = BufferedUpload {
        path: at("/inbox/small"),
        options: sized(2),
        content: vec!["xx".into()],
        expected: None,
    };
    let mut unsized_one = data
        .view
        .upload(&at("/inbox/unsized"), unsized_upload())
        .expect("begun");
    let small = data
        .view
        .commit_all(vec![small], &"session".into(), MAX_BATCH_DESCRIPTORS)
        .pop();
    for refused in [
        data.put("/inbox/put", b"xx").map(drop),
        unsized_one.write(b"xx"),
        data.cp("/own", "/inbox/cp", IfExists::Fail).map(drop),
        data.mv("/own", "/inbox/mv", IfExists::Fail).map(drop),
        small.expect("an outcome").map(drop),
    ] {
        assert_fails!(&refused, StorageError::QuotaReached { .. });
        let message = refused.expect_err("refused").to_string();
        assert!(
            message.ends_with("does not fit in the quota of its folder"),
            "{message}"
        );
    }
}

#[test]
fn a_quota_error_of_a_resumed_upload_hides_the_usage_from_a_member_who_may_not_list() {
    let data = TestStore::new().mount("inbox", Rights::DROP, SpaceLimits::default());
    let mut upload = data
        .view
        .upload(&at("/inbox/a"), sized(200_000))
        .expect("begun");
    upload.write(&vec![0; 100_000]).expect("room");
    assert!(upload.keep().expect("kept"));
    let bytes = Some(100_000);
    let limits = SpaceLimits { bytes, files: None };
    let _inbox = data.store.folder("inbox", limits).expect("a folder");
    let begun = data
        .view
        .begin(&at("/inbox/a"), sized(200_000), &"later".into(), true);
    assert_fails!(begun, StorageError::QuotaReached { .. });
}

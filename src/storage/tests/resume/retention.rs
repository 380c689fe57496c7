//! Which partial uploads are kept, and for how long.

use std::fs;
use std::time::Duration;

use crate::storage::tests::resume::{
    SIZE, assert_nothing_kept, begin, content, offsets, partly, restart, resume, session,
};
use crate::storage::tests::*;

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
fn a_home_counts_as_removed_only_if_it_is_known_to_be_absent() {
    let data = TestStore::new();
    assert!(!data.store.is_gone(data.home.id()));
    fs::remove_dir(data.on_disk("")).expect("removed");
    assert!(data.store.is_gone(data.home.id()));
}

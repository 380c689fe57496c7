//! Rights: what a mount allows, and no more.

use crate::storage::tests::*;

/// A view with `/team` mounted with `rights`, and `/team/dir/a` in it.
fn team(rights: &str) -> TestStore {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.mkdir("/team/dir");
    data.put("/team/dir/a", b"abc").expect("put");
    data.put("/mine", b"m").expect("put");
    data.mount(
        "team",
        rights.parse().expect("rights"),
        SpaceLimits::default(),
    )
}

#[test]
fn a_reader_reads_and_changes_nothing() {
    let data = team("r");
    assert_eq!(data.get("/team/dir/a").expect("readable"), b"abc");
    assert_eq!(data.names("/team/dir"), ["a"]);
    assert!(
        data.view
            .stat(&at("/team/dir/a"))
            .expect("there")
            .digest
            .is_some()
    );
    data.cp("/team/dir/a", "/copy", IfExists::Fail)
        .expect("out");
    data.cp("/team", "/whole", IfExists::Fail).expect("out");
    assert_eq!(data.get("/whole/dir/a").expect("there"), b"abc");
    for path in ["/team/dir/a", "/team/new", "/team/nowhere/new"] {
        assert_fails!(data.put(path, b"x"), StorageError::Denied { .. });
        assert_fails!(
            data.cp("/mine", path, IfExists::Replace),
            StorageError::Denied { .. }
        );
        assert_fails!(data.remove(path), StorageError::Denied { .. });
        assert_fails!(
            data.view.make_dir(&at(path), true, None),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.mv(path, "/stolen", IfExists::Fail),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.mv("/mine", path, IfExists::Replace),
            StorageError::Denied { .. }
        );
    }
    data.assert_exact("/team", "folders/team");
}

#[test]
fn a_dropper_puts_new_files_and_sees_nothing() {
    let data = team("drop");
    data.put("/team/dir/b", b"new").expect("put");
    data.cp("/mine", "/team/copied", IfExists::Fail)
        .expect("in");
    data.mv("/mine", "/team/moved", IfExists::Fail).expect("in");
    data.view
        .enter(&at("/team"))
        .expect("the mount is no secret");
    data.view
        .stat(&at("/team"))
        .expect("the mount is no secret");
    assert_fails!(data.put("/team/dir/a", b"x"), StorageError::Denied { .. });
    for path in ["/team/dir/a", "/team/nowhere", "/team/dir"] {
        assert_fails!(data.view.stat(&at(path)), StorageError::Denied { .. });
        assert_fails!(data.view.enter(&at(path)), StorageError::Denied { .. });
        assert_fails!(data.get(path), StorageError::Denied { .. });
        assert_fails!(data.remove(path), StorageError::Denied { .. });
        assert_fails!(
            data.digest(path, Algorithm::Blake3),
            StorageError::Denied { .. }
        );
    }
    assert_fails!(
        data.view.list(&at("/team"), None, 10, usize::MAX),
        StorageError::Denied { .. }
    );
    assert_eq!(data.names("/"), ["team"]);
    for path in ["/team", "/team/dir/a"] {
        assert_fails!(data.view.usage(&at(path)), StorageError::Denied { .. });
    }
    let data = data.mount("team", Rights::ALL, SpaceLimits::default());
    data.assert_exact("/team", "folders/team");
}

#[test]
fn replacing_is_a_right_of_its_own() {
    let data = team("list,read,write,delete");
    assert_fails!(data.put("/team/dir/a", b"x"), StorageError::Denied { .. });
    assert_fails!(
        data.mv("/mine", "/team/dir/a", IfExists::Replace),
        StorageError::Denied { .. }
    );
    assert_fails!(
        data.cp("/mine", "/team/dir/a", IfExists::Replace),
        StorageError::Denied { .. }
    );
    let mut upload = data.view.upload(&at("/team/late"), sized(1)).expect("free");
    upload.write(b"x").expect("room");
    data.put("/team/late", b"first").expect("free");
    assert_fails!(upload.commit(None), StorageError::Denied { .. });
    assert_eq!(data.get("/team/late").expect("there"), b"first");
    data.assert_exact("/team", "folders/team");
}

#[test]
fn moving_out_of_a_folder_is_no_way_to_read_it() {
    let data = team("list,write,delete");
    data.mv("/team/dir/a", "/team/b", IfExists::Fail)
        .expect("within");
    assert_fails!(
        data.mv("/team/b", "/b", IfExists::Fail),
        StorageError::Denied { .. }
    );
    assert_eq!(data.view.stat(&at("/team/b")).expect("there").digest, None);
}

#[test]
fn a_mount_itself_stays_where_it_is() {
    let data = team("rw");
    assert_fails!(data.remove("/team"), StorageError::Denied { .. });
    assert_fails!(
        data.mv("/team", "/other", IfExists::Fail),
        StorageError::Denied { .. }
    );
    for if_exists in [IfExists::Fail, IfExists::Replace, IfExists::Rename] {
        assert_fails!(
            data.mv("/mine", "/team", if_exists),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.cp("/mine", "/team", if_exists),
            StorageError::Denied { .. }
        );
        assert_fails!(
            data.put_if("/team", b"x", if_exists),
            StorageError::IsADirectory { .. }
        );
    }
    assert_fails!(
        data.view.make_dir(&at("/team"), false, None),
        StorageError::Exists { .. }
    );
    assert_fails!(
        data.view.stat(&at("/other-team/x")),
        StorageError::NotFound { .. }
    );
}

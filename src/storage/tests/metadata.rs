//! Modification times and permission bits that clients give to files and directories.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;

use crate::protocol::FileMode;
use crate::storage::tests::*;

fn mode(bits: u32) -> FileMode {
    FileMode::from_st_mode(bits)
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn with_mode(bits: u32) -> UploadOptions {
    UploadOptions {
        mode: Some(mode(bits)),
        ..sized(4)
    }
}

impl TestStore {
    fn mode(&self, path: &str) -> Option<FileMode> {
        self.view.stat(&at(path)).expect("there").mode
    }

    fn put_with(&self, path: &str, options: UploadOptions) {
        let mut upload = self.view.upload(&at(path), options).expect("begun");
        upload.write(b"text").expect("written");
        upload.commit(None).expect("committed");
    }

    fn set(&self, path: &str, update: MetadataUpdate) -> Result<MetadataUpdate, StorageError> {
        self.view.set_metadata(&at(path), update)
    }

    fn set_mode(&self, path: &str, bits: u32) {
        let update = MetadataUpdate {
            mode: Some(mode(bits)),
            modified: None,
        };
        assert_eq!(self.set(path, update).expect("set"), update);
    }
}

#[test]
fn a_mode_is_kept_with_the_file_and_never_applied_to_it() {
    let data = TestStore::new();
    data.put_with("/large", with_mode(0o755));
    let small = BufferedUpload {
        path: at("/small"),
        options: with_mode(0o444),
        content: vec![Bytes::from_static(b"text")],
        expected: None,
    };
    for committed in data
        .view
        .commit_all(vec![small], &"session".into(), MAX_BATCH_DESCRIPTORS)
    {
        committed.expect("committed");
    }
    data.view
        .make_dir(&at("/a/b"), true, Some(mode(0o700)))
        .expect("made");
    data.view
        .make_dir(&at("/a/b"), true, Some(mode(0o711)))
        .expect("there");
    data.view
        .make_dir(&at("/c"), false, Some(mode(0o500)))
        .expect("made");
    data.put("/none", b"text").expect("put");
    for (path, bits) in [
        ("/large", Some(mode(0o755))),
        ("/small", Some(mode(0o444))),
        ("/a/b", Some(mode(0o700))),
        ("/c", Some(mode(0o500))),
        ("/a", None),
        ("/none", None),
        ("/", None),
    ] {
        assert_eq!(data.mode(path), bits, "{path}");
    }
    for (path, bits) in [("large", 0o600), ("small", 0o600), ("c", 0o700)] {
        let meta = std::fs::metadata(data.on_disk(path)).expect("there");
        assert_eq!(meta.permissions().mode() & 0o777, bits, "{path}");
    }
    let page = data
        .view
        .list(&at("/"), None, 100, 100_000)
        .expect("listed");
    let modes: Vec<_> = page.entries.iter().map(|entry| entry.mode).collect();
    let expected = [
        None,
        Some(mode(0o500)),
        Some(mode(0o755)),
        None,
        Some(mode(0o444)),
    ];
    assert_eq!(modes, expected);
    data.put("/large", b"new!").expect("replaced");
    assert_eq!(data.mode("/large"), None, "another file");
}

#[test]
fn moves_copies_and_backups_keep_modes() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.mkdir("/dir/sub");
    data.put_with("/dir/file", with_mode(0o600));
    data.set_mode("/dir", 0o750);
    data.set_mode("/dir/sub", 0o711);
    data.cp("/dir", "/copy", IfExists::Fail).expect("copied");
    data.cp("/dir/file", "/copied", IfExists::Fail)
        .expect("copied");
    data.mv("/dir", "/team/dir", IfExists::Fail).expect("moved");
    let home_and_folder = ["homes/alice", "folders/team"].map(PathBuf::from);
    let copy = data.dir.path().join("copy");
    let backup = Backup::begin(&data.data(""), &copy).expect("begins");
    backup
        .copy(&home_and_folder, &mut |_| true)
        .expect("copied");
    let store = Store::open(&copy).expect("a store");
    let home = store.home("alice", SpaceLimits::default()).expect("a home");
    let restored = View::new(&store, home, Vec::new());
    for (path, bits) in [
        ("/copy", 0o750),
        ("/copy/sub", 0o711),
        ("/copy/file", 0o600),
        ("/copied", 0o600),
        ("/team/dir", 0o750),
        ("/team/dir/sub", 0o711),
        ("/team/dir/file", 0o600),
    ] {
        assert_eq!(data.mode(path), Some(mode(bits)), "{path}");
        if !path.starts_with("/team") {
            let found = restored.stat(&at(path)).expect("there").mode;
            assert_eq!(found, Some(mode(bits)), "{path}");
        }
    }
}

#[test]
fn a_file_keeps_version_and_digests_when_its_time_is_set() {
    let data = TestStore::new();
    let committed = data.put("/put", b"text").expect("put");
    std::fs::write(data.on_disk("by-hand"), "text").expect("written");
    for path in ["/put", "/by-hand"] {
        let before = data.view.stat(&at(path)).expect("there");
        let update = MetadataUpdate {
            modified: Some(time("2001-02-03T04:05:06.123456789Z")),
            mode: Some(mode(0o640)),
        };
        assert_eq!(data.set(path, update).expect("set"), update);
        let after = data.view.stat(&at(path)).expect("there");
        assert_eq!(after.version, before.version, "{path}");
        assert_eq!(after.digest, before.digest, "{path}");
        assert_eq!(Some(after.modified), update.modified, "{path}");
        assert_eq!(after.mode, update.mode, "{path}");
    }
    let file = data.view.open(&at("/put"), Some(&committed.version));
    let file = file.expect("that version");
    assert_eq!(file.kept_digest(Algorithm::Blake3), Some(committed.digest));
}

#[test]
fn directories_and_the_root_have_times_and_modes() {
    let data = TestStore::new();
    data.mkdir("/dir");
    for path in ["/dir", "/dir/", "/"] {
        let update = MetadataUpdate {
            modified: Some(time("1969-12-31T23:59:58.5Z")),
            mode: Some(mode(0o755)),
        };
        assert_eq!(data.set(path, update).expect("set"), update);
        let info = data.view.stat(&at(path)).expect("there");
        assert_eq!(
            (Some(info.modified), info.mode),
            (update.modified, update.mode)
        );
    }
    let nothing = MetadataUpdate::default();
    assert_fails!(data.set("/no", nothing), StorageError::NotFound { .. });
    data.put("/file", b"text").expect("put");
    assert_fails!(data.set("/file/", nothing), StorageError::InvalidPath(_));
}

#[test]
fn metadata_of_a_file_needs_the_right_to_overwrite_and_of_a_directory_the_right_to_write() {
    let update = MetadataUpdate {
        modified: None,
        mode: Some(mode(0o777)),
    };
    for (rights, file, dir) in [
        (Rights::READ, false, false),
        (Rights::DROP, false, true),
        (Rights::ALL, true, true),
    ] {
        let data = TestStore::new().mount("team", rights, SpaceLimits::default());
        std::fs::create_dir(data.data("folders/team/dir")).expect("made");
        std::fs::write(data.data("folders/team/file"), "text").expect("written");
        for (path, is_allowed) in [("/team/file", file), ("/team/dir", dir), ("/team", dir)] {
            let set = data.set(path, update);
            assert_eq!(set.is_ok(), is_allowed, "{path}: {set:?}");
            if !is_allowed {
                assert_fails!(set, StorageError::Denied { .. });
            }
        }
    }
}

#[test]
fn a_retried_upload_is_not_confirmed_by_a_file_of_another_mode() {
    let data = TestStore::new();
    data.put_with("/file", with_mode(0o600));
    let session = "other".into();
    let begin = |bits| {
        let begun = data
            .view
            .begin(&at("/file"), with_mode(bits), &session, true);
        matches!(begun, Ok(BegunUpload::AlreadyCommitted(_)))
    };
    assert!(begin(0o600));
    assert!(!begin(0o644));
}

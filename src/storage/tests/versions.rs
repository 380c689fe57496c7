//! Versions: they name the content at a path, and survive what does not change it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;

use crate::storage::tests::*;

impl TestStore {
    fn version(&self, path: &str) -> String {
        let info = self.view.stat(&at(path)).expect("there");
        info.version.expect("a file")
    }

    /// Writes a file as an operator does, beside haul.
    fn write_by_hand(&self, path: &str, content: &str) {
        fs::write(self.on_disk(path), content).expect("written");
    }

    fn modified(&self, path: &str) -> SystemTime {
        let meta = fs::metadata(self.on_disk(path)).expect("there");
        meta.modified().expect("known")
    }

    /// Writes into a file and sets its modification time back, until its change time differs.
    fn edit_unnoticed(&self, path: &str, content: &str) {
        use std::os::unix::fs::MetadataExt;
        let changed = |file: &File| {
            let meta = file.metadata().expect("its metadata");
            (meta.ctime(), meta.ctime_nsec())
        };
        let modified = self.modified(path);
        let file = File::options().write(true).open(self.on_disk(path));
        let file = file.expect("there");
        let before = changed(&file);
        while changed(&file) == before {
            self.write_by_hand(path, content);
            file.set_modified(modified).expect("set");
        }
    }
}

#[test]
fn every_publication_has_a_version_of_its_own() {
    let data = TestStore::new();
    data.mkdir("/tree");
    let mut versions = vec![
        data.put("/tree/a", b"same").expect("put").version,
        data.put("/tree/a", b"same").expect("put").version,
    ];
    let small = BufferedUpload {
        path: at("/small"),
        options: sized(4),
        content: vec![Bytes::from_static(b"same")],
        expected: None,
    };
    for committed in data
        .view
        .commit_all(vec![small], &"session".into(), MAX_BATCH_DESCRIPTORS)
    {
        versions.push(committed.expect("put").committed.version);
    }
    assert_eq!(data.version("/tree/a"), versions[1]);
    assert_eq!(data.version("/small"), versions[2]);
    data.cp("/tree", "/copy", IfExists::Fail).expect("copied");
    data.cp("/tree/a", "/b", IfExists::Fail).expect("copied");
    versions.extend(["/copy/a", "/b"].map(|path| data.version(path)));
    let count = versions.len();
    versions.sort();
    versions.dedup();
    assert_eq!(versions.len(), count, "{versions:?}");
}

#[test]
fn a_file_that_is_moved_keeps_its_version() {
    let data = TestStore::new().mount("team", Rights::ALL, SpaceLimits::default());
    data.put("/put", b"content").expect("put");
    data.write_by_hand("by-hand", "content");
    for path in ["/put", "/by-hand"] {
        let version = data.version(path);
        data.mv(path, "/moved", IfExists::Fail).expect("moved");
        assert_eq!(data.version("/moved"), version, "{path}");
        data.mv("/moved", "/team/moved", IfExists::Replace)
            .expect("moved");
        assert_eq!(data.version("/team/moved"), version, "{path}");
    }
}

#[test]
fn a_file_that_is_edited_by_hand_has_another_version() {
    let data = TestStore::new();
    data.put("/put", b"content").expect("put");
    data.write_by_hand("by-hand", "content");
    let by_hand = data.version("/by-hand");
    data.edit_unnoticed("by-hand", "CONTENT");
    assert_ne!(data.version("/by-hand"), by_hand, "same size, same time");
    let put = data.version("/put");
    data.write_by_hand("put", "something longer");
    let edited = data.version("/put");
    assert_ne!(edited, put);
    assert_eq!(data.version("/put"), edited);
}

#[test]
fn a_file_keeps_its_version_when_its_digest_is_kept() {
    let data = TestStore::new();
    data.write_by_hand("by-hand", "content");
    let version = data.version("/by-hand");
    let opened = data.view.open(&at("/by-hand"), Some(&version));
    let opened = opened.expect("that version");
    for algorithm in Algorithm::ALL {
        data.digest("/by-hand", algorithm).expect("computed");
        assert_eq!(data.version("/by-hand"), version, "{algorithm}");
    }
    opened.check_unchanged().expect("the same content");
    let again = data.view.open(&at("/by-hand"), Some(&version));
    let again = again.expect("that version");
    let kept = Algorithm::ALL.map(|algorithm| again.kept_digest(algorithm).is_some());
    assert_eq!(kept, [true; 3]);
}

#[test]
fn a_backup_and_its_restore_keep_versions() {
    let data = TestStore::new();
    data.put("/put", b"content").expect("put");
    data.write_by_hand("by-hand", "content");
    let copy = data.dir.path().join("copy");
    let backup = Backup::begin(&data.data(""), &copy).expect("begins");
    let homes = [PathBuf::from("homes/alice")];
    let copied = backup.copy(&homes, &mut |_| true).expect("copied");
    assert_eq!(copied, BackupOutcome::Complete);
    let store = Store::open(&copy).expect("a store");
    let home = store.home("alice", SpaceLimits::default()).expect("a home");
    let restored = View::new(&store, home, Vec::new());
    for path in ["/put", "/by-hand"] {
        let (before, after) = (data.view.stat(&at(path)), restored.stat(&at(path)));
        assert_eq!(after.expect("there"), before.expect("there"), "{path}");
    }
}

//! A data directory that no server can work with is refused at the start, with what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::storage::tests::disks::{on_a_small_disk, without_privileges};
use crate::storage::tests::*;

/// Asserts that the directory is refused in one line that says why.
fn assert_unusable(data: &Path, why: &str) {
    assert_refused(Store::open(data).map(drop), data, why);
}

fn assert_refused(result: Result<(), StorageError>, data: &Path, why: &str) {
    let error = result.expect_err("refused");
    assert_fails!(Err::<(), _>(&error), StorageError::Unusable { .. });
    let text = error.to_string();
    let start = format!("cannot use the data directory {}: ", data.display());
    assert!(text.starts_with(&start) && text.contains(why), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

fn mount(arguments: &[&str], on: &Path) {
    let done = Command::new("mount").args(arguments).arg(on).status();
    assert!(done.expect("mount runs").success());
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "").expect("written");
    symlink("circle", at("circle")).expect("linked");
    symlink("nowhere", at("link")).expect("linked");
    assert_unusable(
        &at("file"),
        "a part of the path is a file; name a directory",
    );
    assert_unusable(
        &at("file/data"),
        "a part of the path is a file; name a directory",
    );
    assert_unusable(&at("circle"), "form a loop");
    assert_unusable(&at("circle/data"), "form a loop");
    assert_unusable(&at("link"), "check that the volume is mounted");
    fs::create_dir(at("data")).expect("made");
    fs::write(at("data/homes"), "").expect("written");
    assert_unusable(&at("data"), "a part of the path is a file");
}

#[test]
fn a_directory_of_someone_elses_is_refused() {
    without_privileges("storage::tests::data::may_not_write");
}

#[test]
#[ignore = "wants a user to whom permissions apply: run by the test above"]
fn may_not_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).expect("changed");
    assert_unusable(&data, "who may not write there; ");
    assert_unusable(&data.join("inner"), "may not write there; ");
}

#[test]
fn a_read_only_disk_is_refused_whether_there_is_data_on_it_or_not() {
    on_a_small_disk("storage::tests::data::is_read_only", "size=8m");
}

#[test]
#[ignore = "wants a disk of its own: run by the test above"]
fn is_read_only() {
    let disk = std::env::temp_dir();
    drop(Store::open(&disk.join("old")).expect("a store"));
    mount(&["-o", "remount,ro"], &disk);
    for name in ["old", "new"] {
        assert_unusable(&disk.join(name), "the file system is read-only");
    }
}

#[test]
fn a_full_disk_is_no_reason_not_to_start() {
    on_a_small_disk("storage::tests::data::is_full", "size=1m");
    on_a_small_disk("storage::tests::data::is_full", "nr_inodes=6");
}

#[test]
#[ignore = "wants a small disk: run by the test above"]
fn is_full() {
    let data = std::env::temp_dir().join("data");
    drop(Store::open(&data).expect("a store"));
    // One or the other is used up by then.
    let _ = fs::write(data.join("filler"), vec![0; 2 << 20]);
    drop(Store::open(&data).expect("what is there can be read and removed"));
    let left = fs::read_dir(data.join("staging")).expect("staging").count();
    assert_eq!(left, 0);
}

#[test]
fn homes_on_another_disk_than_staging_are_refused() {
    on_a_small_disk("storage::tests::data::is_in_two_parts", "size=8m");
}

#[test]
#[ignore = "wants a disk of its own: run by the test above"]
fn is_in_two_parts() {
    let data = std::env::temp_dir().join("data");
    drop(Store::open(&data).expect("a store"));
    mount(&["-t", "tmpfs", "haul"], &data.join("homes"));
    assert_unusable(&data, "staging and homes are on different file systems");
    let left = fs::read_dir(data.join("staging")).expect("staging").count();
    assert_eq!(left, 0);
}

#[test]
fn a_mount_inside_a_home_accepts_no_files_and_the_error_says_why() {
    on_a_small_disk("storage::tests::data::has_a_mount_inside", "size=8m");
}

#[test]
#[ignore = "wants a disk of its own: run by the test above"]
fn has_a_mount_inside() {
    let data = TestStore::new();
    data.mkdir("/disk");
    data.mkdir("/same");
    mount(&["-t", "tmpfs", "haul"], &data.on_disk("disk"));
    let same = data.on_disk("same");
    mount(&["--bind", same.to_str().expect("UTF-8")], &same);
    data.put("/file", b"x").expect("put");
    for dir in ["/disk", "/same"] {
        let path = format!("{dir}/a");
        let refused = |result: Result<(), StorageError>| match result {
            Err(error @ StorageError::OtherFileSystem { .. }) => {
                let text = error.to_string();
                assert!(text.contains("is on another file system"), "{text}");
            }
            other => panic!("{other:?}"),
        };
        // Before any byte is sent.
        refused(data.view.upload(&at(&path), sized(1)).map(drop));
        let small = BufferedUpload {
            path: at(&path),
            options: sized(1),
            content: vec![b"x"[..].into()],
            expected: None,
        };
        let outcome = data
            .view
            .commit_all(vec![small], &"s".into(), MAX_BATCH_DESCRIPTORS)
            .remove(0);
        refused(outcome.map(drop));
        refused(data.cp("/file", &path, IfExists::Fail).map(drop));
        refused(data.mv("/file", &path, IfExists::Fail).map(drop));
        data.view
            .make_dir(&at(&path), false, None)
            .expect("made there");
        refused(data.remove(&path).map(drop));
        data.view
            .remove(&at(&path), false, &never)
            .expect("removed there");
        let options = UploadOptions {
            parents: true,
            ..sized(0)
        };
        let late = data.view.upload(&at(&format!("{dir}/b/c")), options);
        refused(late.and_then(|upload| upload.commit(None)).map(drop));
    }
    assert_eq!(data.staged(), 0);
}

#[test]
fn with_require_mount_a_new_data_directory_must_be_a_mount() {
    on_a_small_disk("storage::tests::data::is_a_volume", "size=8m");
}

#[test]
#[ignore = "wants a disk of its own: run by the test above"]
fn is_a_volume() {
    let disk = std::env::temp_dir();
    check_mounted(&disk).expect("mounted");
    let data = disk.join("data");
    let why = "it holds no accounts and is not a mounted volume; ";
    assert_refused(check_mounted(&data), &data, why);
    fs::create_dir_all(data.join("bound")).expect("made");
    assert_refused(check_mounted(&data), &data, why);
    mount(
        &["--bind", data.to_str().expect("UTF-8")],
        &data.join("bound"),
    );
    check_mounted(&data.join("bound")).expect("mounted");
    fs::write(data.join("haul.db"), "").expect("written");
    check_mounted(&data).expect("somebody began here");
}

//! Reading: the content that was opened, or an error.

use std::fs::OpenOptions;
use std::io::Write;

use crate::storage::tests::*;

#[test]
fn a_file_that_is_open_keeps_its_content_whatever_becomes_of_its_name() {
    let data = TestStore::new();
    for change in ["replace", "remove", "rename", "remove the directory"] {
        data.mkdir("/dir");
        data.put("/dir/a", b"the old content").expect("put");
        let file = data.view.open(&at("/dir/a"), None).expect("there");
        match change {
            "replace" => drop(data.put("/dir/a", b"new").expect("put")),
            "remove" => drop(data.remove("/dir/a").expect("removed")),
            "rename" => drop(data.mv("/dir/a", "/b", IfExists::Replace).expect("moved")),
            _ => drop(data.remove("/dir").expect("removed")),
        }
        assert_eq!(read(&file).expect(change), b"the old content");
    }
}

#[test]
fn a_file_that_is_cut_short_while_it_is_read_is_an_error() {
    let data = TestStore::new();
    data.put("/a", &vec![7; 100_000]).expect("put");
    let file = data.view.open(&at("/a"), None).expect("there");
    assert_eq!(file.read_at(0, 50_000).expect("there").len(), 50_000);
    let on_disk = OpenOptions::new().write(true).open(data.on_disk("a"));
    on_disk.expect("there").set_len(60_000).expect("cut");
    assert_fails!(file.read_at(50_000, 50_000), StorageError::Changed { .. });
    assert_fails!(file.check_unchanged(), StorageError::Changed { .. });
}

#[test]
fn a_file_that_is_written_to_while_it_is_read_is_an_error() {
    let data = TestStore::new();
    data.put("/a", b"abc").expect("put");
    let file = data.view.open(&at("/a"), None).expect("there");
    let on_disk = OpenOptions::new().append(true).open(data.on_disk("a"));
    on_disk.expect("there").write_all(b"d").expect("written");
    assert_eq!(&file.read_at(0, 3).expect("there")[..], b"abc");
    assert_fails!(file.check_unchanged(), StorageError::Changed { .. });
}

#[test]
fn a_range_past_the_end_is_refused_with_the_size() {
    let data = TestStore::new();
    data.put("/a", b"abc").expect("put");
    let file = data.view.open(&at("/a"), None).expect("there");
    for (offset, length) in [(0, 4), (3, 1), (4, 0), (u64::MAX, 1), (1, usize::MAX)] {
        assert_fails!(
            file.read_at(offset, length),
            StorageError::OffsetOutOfRange { size: 3, .. }
        );
    }
    assert_eq!(&file.read_at(1, 2).expect("there")[..], b"bc");
    assert!(file.read_at(3, 0).expect("there").is_empty());
}

#[test]
fn a_version_tells_one_content_from_another() {
    let data = TestStore::new();
    let time = Some("2024-01-01T00:00:00Z".parse().expect("a time"));
    let put = || {
        let options = UploadOptions {
            modified: time,
            ..sized(3)
        };
        let mut upload = data.view.upload(&at("/a"), options).expect("room");
        upload.write(b"abc").expect("room");
        upload.commit(None).expect("whole").version
    };
    let (first, second) = (put(), put());
    assert_ne!(first, second, "same size, same time, another file");
    assert_fails!(
        data.view.open(&at("/a"), Some(&first)),
        StorageError::Changed { .. }
    );
    data.view.open(&at("/a"), Some(&second)).expect("the same");
    data.mv("/a", "/b", IfExists::Fail).expect("moved");
    data.view.open(&at("/b"), Some(&second)).expect("the same");
}

#[test]
fn rotten_bytes_do_not_match_the_kept_digest() {
    let data = TestStore::new();
    let committed = data.put("/a", b"sound").expect("put");
    let on_disk = data.on_disk("a");
    let modified = std::fs::metadata(&on_disk).and_then(|meta| meta.modified());
    let rotten = OpenOptions::new()
        .write(true)
        .open(&on_disk)
        .expect("there");
    (&rotten).write_all(b"s0und").expect("written");
    rotten.set_modified(modified.expect("a time")).expect("set");
    let file = data.view.open(&at("/a"), None).expect("there");
    assert_eq!(file.kept_digest(Algorithm::Blake3), Some(committed.digest));
    let bytes = read(&file).expect("readable");
    assert_ne!(Digest::compute(Algorithm::Blake3, &bytes), committed.digest);
}

#[test]
fn a_digest_is_kept_until_the_content_changes() {
    let data = TestStore::new();
    let sha256 = |data: &TestStore| data.digest("/a", Algorithm::Sha256);
    data.put("/a", b"abc").expect("put");
    let expected = Digest::compute(Algorithm::Sha256, b"abc");
    let file = data.view.open(&at("/a"), None).expect("there");
    assert_eq!(file.kept_digest(Algorithm::Sha256), None);
    assert_eq!(sha256(&data).expect("computed"), expected);
    let file = data.view.open(&at("/a"), None).expect("there");
    assert_eq!(file.kept_digest(Algorithm::Sha256), Some(expected));
    assert_eq!(sha256(&data).expect("kept"), expected);
    std::fs::write(data.on_disk("a"), b"abcd").expect("written");
    let file = data.view.open(&at("/a"), None).expect("there");
    assert_eq!(file.kept_digest(Algorithm::Sha256), None);
    assert_eq!(file.info().digest, None);
    assert_eq!(
        sha256(&data).expect("computed"),
        Digest::compute(Algorithm::Sha256, b"abcd")
    );
}

#[test]
fn a_directory_is_not_a_file_and_a_file_is_not_a_directory() {
    let data = TestStore::new();
    data.mkdir("/dir");
    data.put("/a", b"x").expect("put");
    assert_fails!(data.get("/dir"), StorageError::IsADirectory { .. });
    assert_fails!(data.get("/"), StorageError::IsADirectory { .. });
    assert_fails!(
        data.view.enter(&at("/a")),
        StorageError::NotADirectory { .. }
    );
    let error = data
        .view
        .enter(&at("/reports/nowhere"))
        .expect_err("absent");
    assert_eq!(error.to_string(), "no such directory: /reports/nowhere");
    let error = data.get("/nothing").expect_err("absent");
    assert_eq!(error.to_string(), "no such file: /nothing");
    data.view.enter(&at("/dir/")).expect("a directory");
}

#[test]
fn an_error_names_the_file_on_the_way_to_a_path() {
    let data = TestStore::new();
    data.put("/a", b"x").expect("put");
    let errors = [
        data.view.enter(&at("/a")).expect_err("a file"),
        data.view.enter(&at("/a/b/c")).expect_err("a file"),
        data.view
            .make_dir(&at("/a/b"), true, None)
            .expect_err("a file"),
        data.view.stat(&at("/a/b")).expect_err("a file"),
        data.get("/a/b").expect_err("a file"),
        data.put("/a/b", b"x").expect_err("a file"),
    ];
    for error in errors {
        assert_eq!(error.to_string(), "/a is a file, not a directory");
    }
}

//! `put` and `get` of trees and of several files: targets, skipped files and repeated transfers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use crate::command_line::Person;
use crate::harness::TestServer;

#[tokio::test]
async fn a_directory_goes_up_and_comes_back_with_its_times() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("reports/may.txt", "May");
    person.write("reports/old/april.txt", "April");
    let past = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = fs::File::options()
        .write(true)
        .open(person.path("reports/may.txt"));
    file.and_then(|file| file.set_modified(past)).expect("set");
    person.types(&["put", "reports"], 0).await;
    person.types(&["get", "reports", "back"], 0).await;
    assert_eq!(person.read("back/old/april.txt"), "April");
    let modified = fs::metadata(person.path("back/may.txt")).and_then(|there| there.modified());
    assert_eq!(modified.expect("a time"), past);
    let (names, _) = person.types(&["ls", "reports"], 0).await;
    assert_eq!(names, "may.txt\nold/\n");
}

#[tokio::test]
async fn a_tree_is_transferred_again_to_the_same_place() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("site/index.html", "1");
    person.write("site/img/a.png", "png");
    let names = async |path: &str| person.types(&["ls", path], 0).await.0;
    for args in [
        &["put", "site/", "web"][..],
        &["put", "-T", "site", "web"],
        &["put", "-t", "web", "site/"],
        &["put", "site/", ":web/"],
    ] {
        for _ in 0..2 {
            person.types(args, 0).await;
            assert_eq!(names("web").await, "img/\nindex.html\n", "{args:?}");
        }
    }
    person.types(&["put", "site", "web"], 0).await;
    assert_eq!(names("web").await, "img/\nindex.html\nsite/\n");
    person.types(&["rm", "-r", "web/site"], 0).await;
    for args in [
        &["get", "web/", "back"][..],
        &["get", "-T", "web", "back"],
        &["get", "-t", "back", "web/"],
    ] {
        for _ in 0..2 {
            person.types(args, 0).await;
            assert_eq!(person.read("back/img/a.png"), "png");
            assert!(!person.path("back/web").exists(), "{args:?}");
        }
    }
    person.types(&["put", "site/"], 0).await;
    assert_eq!(names("site").await, "img/\nindex.html\n");
    person.types(&["put", "-T", "site", "back", "web"], 2).await;
}

#[tokio::test]
async fn files_that_exist_are_skipped_and_counted() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/old", "1");
    person.types(&["put", "d"], 0).await;
    person.write("d/old", "changed");
    person.write("d/new", "2");
    let skip = ["--if-exists", "skip"];
    let (_, stderr) = person.types(&[&["put", "d"], &skip[..]].concat(), 0).await;
    assert!(stderr.contains("1 file, 1 B in"), "{stderr}");
    assert!(stderr.contains(", 1 existed already"), "{stderr}");
    assert_eq!(person.types(&["get", "d/old", "-"], 0).await.0, "1");
    fs::remove_file(person.path("d/new")).expect("removed");
    let (_, stderr) = person.types(&[&["get", "d"], &skip[..]].concat(), 0).await;
    assert!(stderr.contains(", 1 existed already"), "{stderr}");
    assert_eq!(person.read("d/old"), "changed");
    assert_eq!(person.read("d/new"), "2");
    // A directory with the name of a file is not skipped.
    person.write("d/taken/file", "3");
    person.write("other", "4");
    person.types(&["put", "other", ":d/taken"], 0).await;
    let (_, stderr) = person.types(&[&["get", "d"], &skip[..]].concat(), 1).await;
    assert!(stderr.contains("haul: get d/taken: "), "{stderr}");
    let (_, stderr) = person.types(&[&["put", "d"], &skip[..]].concat(), 1).await;
    // The directory or the file in it, whichever the server sees first.
    assert!(stderr.contains("haul: put d/taken"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_put_that_skips_existing_files_is_resumed_by_the_next() {
    const LARGE: usize = 64 * 1024 * 1024;
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/small", "1");
    let large = fs::File::create(person.path("d/large")).expect("made");
    large.set_len(LARGE as u64).expect("a large file");
    let put = ["put", "--if-exists", "skip", "d"];
    let limited = [&put[..], &["--bwlimit", "1MiB"]].concat();
    let mut process = person.command(&limited).spawn().expect("started");
    let small = server.home("alice").join("d/small");
    while server.staged_bytes() < 1024 * 1024 || !small.exists() {
        tokio::task::yield_now().await;
    }
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    let (_, stderr) = person.types(&put, 0).await;
    assert!(stderr.contains("1 file, 64.0 MiB in"), "{stderr}");
    assert!(
        stderr.contains("there already, 1 existed already"),
        "{stderr}"
    );
    assert_eq!(person.types(&["uploads"], 0).await.0, "");
    let (_, stderr) = person.types(&put, 0).await;
    assert!(stderr.contains("0 files, 0 B in"), "{stderr}");
    assert!(stderr.contains(", 2 existed already"), "{stderr}");
    let single = ["put", "--if-exists", "skip", "d/large", ":d/large"];
    let (_, stderr) = person.types(&single, 0).await;
    assert!(stderr.contains(", 1 existed already"), "{stderr}");
}

#[tokio::test]
async fn links_out_of_a_tree_are_followed_only_on_request() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/a", "A");
    person.write("secret", "S");
    person.write("other/file", "F");
    for (to, name) in [("a", "d/in"), ("../secret", "d/out"), ("../other", "d/dir")] {
        std::os::unix::fs::symlink(to, person.path(name)).expect("linked");
    }
    let (_, stderr) = person.types(&["put", "d"], 0).await;
    assert!(stderr.contains("haul: d/out: skipped: it is a link out of the tree"));
    assert!(stderr.contains("2 skipped; not kept: 1 link"), "{stderr}");
    assert_eq!(person.types(&["ls", "d"], 0).await.0, "a\nin\n");
    person.types(&["put", "-L", "d"], 0).await;
    assert_eq!(person.types(&["ls", "d"], 0).await.0, "a\ndir/\nin\nout\n");
}

#[tokio::test]
async fn the_last_argument_means_what_it_means_to_cp() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a", "A");
    person.write("b", "B");
    person.types(&["put", "a", "new"], 0).await;
    person.types(&["put", "a", "b", "nowhere"], 2).await;
    person.types(&["put", "a", "b", "made/"], 0).await;
    person.types(&["put", "b", "made"], 0).await;
    assert_eq!(person.types(&["ls", "made"], 0).await.0, "a\nb\n");
    person.types(&["get", "new", "renamed"], 0).await;
    assert_eq!(person.read("renamed"), "A");
    person
        .types(&["get", "made/a", "made/b", "nowhere"], 2)
        .await;
    person.types(&["get", "made/a", "made/b", "here/"], 0).await;
    assert_eq!(person.read("here/b"), "B");
    person.types(&["get", "new", "made/a", "here"], 0).await;
    assert_eq!(person.read("here/new"), "A");
    person.types(&["mv", "new", "made/a", "made/"], 1).await;
    person.types(&["cp", "made/b", "made/c"], 0).await;
    assert_eq!(person.types(&["ls", "made"], 0).await.0, "a\nb\nc\nnew\n");
}

#[tokio::test]
async fn a_put_whose_last_path_is_a_local_one_is_refused_before_anything_is_sent() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    for name in ["a.jpg", "b.jpg", "c.jpg", "d/e.jpg"] {
        person.write(name, name);
    }
    std::os::unix::fs::symlink("nowhere", person.path("link")).expect("linked");
    for args in [
        &["put", "a.jpg", "b.jpg"][..],
        &["put", "a.jpg", "b.jpg", "c.jpg"],
        &["put", "a.jpg", "d"],
        &["put", "a.jpg", "d/"],
        &["put", "a.jpg", "link"],
    ] {
        let last = args.last().expect("several");
        let (_, stderr) = person.types(args, 2).await;
        assert!(
            stderr.contains("-t DIR") && stderr.contains(&format!("`:{last}`")),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let script = "put a.jpg b.jpg\n";
    let (output, _) = person.type_with(&[], "shell", script).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(person.types(&["ls"], 0).await.0, "");
    person.types(&["put", "a.jpg", ":b.jpg"], 0).await;
    assert_eq!(person.types(&["get", "b.jpg", "-"], 0).await.0, "a.jpg");
    // Data from a pipe needs a remote name, so the path is not ambiguous.
    let (output, _) = person.type_with(&["-", "c.jpg"], "put", "piped").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    person.types(&["put", ":a.jpg"], 2).await;
    person.types(&["put", ":a.jpg", "b.jpg", ":d/"], 2).await;
    assert_eq!(person.types(&["ls"], 0).await.0, "b.jpg\nc.jpg\n");
}

#[tokio::test]
async fn the_option_to_names_the_directory_for_any_number_of_paths() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    for name in ["a", "b", "d/c"] {
        person.write(name, name);
    }
    person.types(&["put", "-t", "one", "a"], 0).await;
    person
        .types(&["put", "a", "b", "d", "--to", ":two"], 0)
        .await;
    person.types(&["put", "-t", ".", "a", "b"], 0).await;
    assert_eq!(person.types(&["ls"], 0).await.0, "a\nb\none/\ntwo/\n");
    assert_eq!(person.types(&["ls", "one"], 0).await.0, "a\n");
    assert_eq!(person.types(&["ls", "two"], 0).await.0, "a\nb\nd/\n");
    person.types(&["put", "-t", "a", "b"], 1).await;
    person.types(&["get", "-t", "back", "two/a"], 0).await;
    person.types(&["get", "two/d", ":b", "-t", "back"], 0).await;
    assert_eq!(person.read("back/a"), "a");
    assert_eq!(person.read("back/b"), "b");
    assert_eq!(person.read("back/d/c"), "d/c");
    for args in [&["put", "-t", "-", "a"][..], &["get", "-t", "", "a"]] {
        person.types(args, 2).await;
    }
}

#[tokio::test]
async fn an_ambiguous_get_replaces_no_local_file() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a", "A");
    person.write("b", "B");
    person.types(&["put", "-t", ".", "a", "b"], 0).await;
    person.write("b", "local");
    let (_, stderr) = person.types(&["get", "a", "b"], 2).await;
    assert!(
        stderr.contains("-t DIR") && stderr.contains("`./b`"),
        "{stderr}"
    );
    assert_eq!(person.read("b"), "local");
    person.types(&["get", "a", "./b"], 0).await;
    assert_eq!(person.read("b"), "A");
    person.types(&["get", ":a", ":b"], 0).await;
    assert_eq!(person.read("b"), "B");
    person
        .types(&["get", "a", "b", "--if-exists", "replace"], 0)
        .await;
    assert_eq!(person.read("b"), "A");
    // A path that does not exist on the server is not ambiguous.
    person.types(&["rm", "b"], 0).await;
    person.write("b", "local");
    person.types(&["get", "a", "b"], 0).await;
    assert_eq!(person.read("b"), "A");
}

#[tokio::test]
async fn an_existing_file_is_replaced_kept_or_merged_as_requested() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a.txt", "1");
    person.types(&["put", "a.txt"], 0).await;
    person
        .types(&["put", "a.txt", "--if-exists", "fail"], 1)
        .await;
    let (path, _) = person
        .types(&["put", "a.txt", "--if-exists", "rename"], 0)
        .await;
    assert_eq!(path, "/a (1).txt\n");
    person.write("a.txt", "2");
    person
        .types(&["get", "a.txt", "--if-exists", "fail"], 1)
        .await;
    person
        .types(&["get", "a.txt", "--if-exists", "rename"], 0)
        .await;
    assert_eq!(
        (person.read("a.txt"), person.read("a (1).txt")),
        ("2".into(), "1".into())
    );
    person.types(&["get", "a.txt"], 0).await;
    assert_eq!(person.read("a.txt"), "1");
}

#[tokio::test]
async fn a_repeated_transfer_of_a_tree_transfers_the_changed_files_only() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let names = ["same", "content", "mode", "time", "size"];
    for name in names {
        person.write(&format!("d/{name}"), "first");
    }
    person.types(&["put", "d"], 0).await;
    // The listing is as before, except for the digest.
    let modified = |name: &str| {
        let metadata = fs::metadata(person.path(name)).expect("there");
        metadata.modified().expect("a time")
    };
    let set_modified = |name: &str, time: SystemTime| {
        let file = fs::File::options().write(true).open(person.path(name));
        file.and_then(|file| file.set_modified(time)).expect("set");
    };
    let before = modified("d/content");
    person.write("d/content", "other");
    set_modified("d/content", before);
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(person.path("d/mode"), mode).expect("set");
    set_modified("d/time", before - Duration::from_mins(1));
    person.write("d/size", "longer");
    let (_, stderr) = person.types(&["put", "d"], 0).await;
    assert!(stderr.contains("4 files, 21 B in"), "{stderr}");
    assert!(stderr.contains(", 1 unchanged"), "{stderr}");
    let (_, stderr) = person.types(&["put", "d"], 0).await;
    assert!(stderr.contains("0 files, 0 B in"), "{stderr}");
    assert!(stderr.contains(", 5 unchanged"), "{stderr}");
    let (_, stderr) = person
        .types(&["put", "--if-exists", "replace", "d"], 0)
        .await;
    assert!(stderr.contains("5 files, 26 B in"), "{stderr}");

    let (_, stderr) = person.types(&["get", "d"], 0).await;
    assert!(stderr.contains("0 files, 0 B in"), "{stderr}");
    assert!(stderr.contains(", 5 unchanged"), "{stderr}");
    let before = modified("d/content");
    person.write("d/content", "local");
    set_modified("d/content", before);
    fs::remove_file(person.path("d/same")).expect("removed");
    let (_, stderr) = person.types(&["get", "d"], 0).await;
    assert!(stderr.contains("2 files, 10 B in"), "{stderr}");
    assert!(stderr.contains(", 3 unchanged"), "{stderr}");
    assert_eq!(person.read("d/content"), "other");
    // A file that is named itself is always transferred.
    let (_, stderr) = person.types(&["get", "d/same", "./d/same"], 0).await;
    assert!(stderr.contains("1 file, 5 B in"), "{stderr}");
}

#[tokio::test]
async fn standard_input_comes_first_and_is_skipped_if_the_file_is_there() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a.txt", "1");
    let (_, stderr) = person.types(&["put", "a.txt", "-"], 2).await;
    assert!(stderr.contains("`haul put - NAME`"), "{stderr}");
    person.types(&["put", "a.txt", "n"], 0).await;
    let skipping = ["put", "-", "n", "--if-exists", "skip"];
    let (_, stderr) = person.types(&skipping, 0).await;
    assert!(stderr.contains("n is there already"), "{stderr}");
    let (stdout, _) = person.types(&["cat", "n"], 0).await;
    assert_eq!(stdout, "1");
}

#[tokio::test]
async fn a_kept_md5_digest_does_not_show_that_a_file_is_unchanged() {
    // Of Wang and Yu: the same MD5, and other content.
    let one = "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b302\
         83e488832571415a085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6\
         dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1ec69821bcb6a88393\
         96f9652b6ff72a70";
    let other = "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b302\
         83e4888325f1415a085125e8f7cdc99fd91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6\
         dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1ec69821bcb6a88393\
         96f965ab6ff72a70";
    let decode = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes());
    let (one, other) = (decode(one).expect("digits"), decode(other).expect("digits"));
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/f", "");
    let path = person.path("d/f");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |content: &[u8]| {
        fs::write(&path, content).expect("written");
        let file = fs::File::options().write(true).open(&path);
        file.and_then(|file| file.set_modified(time)).expect("set");
    };
    write(&one);
    person
        .types(&["put", "--digest", "md5", "-T", "d", "d"], 0)
        .await;
    write(&other);
    person.types(&["put", "-T", "d", "d"], 0).await;
    let stored = fs::read(server.home("alice").join("d/f")).expect("there");
    assert!(stored == other, "the changed file was sent");
}

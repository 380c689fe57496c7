//! The commands `cat`, `du`, `find`, `tree` and `ls` on trees.

use std::fs;

use crate::command_line::Person;
use crate::harness::TestServer;

async fn with_tree(server: &TestServer) -> Person {
    let person = Person::connected(server).await;
    let home = server.home("alice");
    for (path, length) in [
        ("d/a.txt", 10),
        ("d/sub/b.txt", 2000),
        ("d/sub/.c", 1),
        ("e", 5),
    ] {
        let path = home.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, "x".repeat(length)).expect("written");
    }
    person
}

#[tokio::test]
async fn cat_prints_files_one_after_the_other() {
    let server = TestServer::start().await;
    let person = with_tree(&server).await;
    let (printed, _) = person.types(&["cat", "e", "d/a.txt"], 0).await;
    assert_eq!(printed, "x".repeat(15));
    let (printed, stderr) = person.types(&["cat", "none", "e"], 1).await;
    assert_eq!(printed, "xxxxx");
    assert!(stderr.contains("none"), "{stderr}");
    let (printed, _) = person.types(&["cat", "d/*.txt"], 0).await;
    assert_eq!(printed.len(), 10);
    // A stored digest that does not match the content.
    person.write("f", "right");
    person.types(&["put", "f"], 0).await;
    let stored = server.home("alice").join("f");
    let modified = fs::metadata(&stored)
        .and_then(|file| file.modified())
        .expect("a time");
    fs::write(&stored, "wrong").expect("written");
    let file = fs::File::options()
        .write(true)
        .open(&stored)
        .expect("opened");
    file.set_modified(modified).expect("set");
    let (_, stderr) = person.types(&["cat", "f"], 1).await;
    assert!(!stderr.is_empty());
}

#[tokio::test]
async fn du_sums_up_directories_and_tree_shows_them() {
    let server = TestServer::start().await;
    let person = with_tree(&server).await;
    let (printed, _) = person.types(&["du", "-b"], 0).await;
    assert_eq!(printed, "      2001  d/sub\n      2011  d\n      2016  .\n");
    let (printed, _) = person.types(&["du", "-sb", "d", "e"], 0).await;
    assert_eq!(printed, "      2011  d\n         5  e\n");
    let (printed, _) = person.types(&["du", "-d", "1", "-h"], 0).await;
    assert_eq!(printed, "   2.0 KiB  d\n   2.0 KiB  .\n");
    let (printed, notes) = person.types(&["tree", "d"], 0).await;
    assert_eq!(printed, "d/\n  a.txt\n  sub/\n    .c\n    b.txt\n");
    assert_eq!(notes, "1 directory, 3 files\n");
    let (printed, _) = person.types(&["tree", "-L", "1", "-d"], 0).await;
    assert_eq!(printed, "./\n  d/\n");
    let (printed, _) = person.types(&["ls", "-R", "d"], 0).await;
    assert_eq!(printed, "d:\na.txt\nsub/\n\nd/sub:\n.c\nb.txt\n");
}

#[tokio::test]
async fn find_prints_the_entries_that_meet_all_conditions() {
    let server = TestServer::start().await;
    let person = with_tree(&server).await;
    for (args, expected) in [
        (&["-name", "*.txt"][..], "d/a.txt\nd/sub/b.txt\n"),
        (&["--name", "*.txt", "-size", "+1k"], "d/sub/b.txt\n"),
        (&["-name", ".c"], "d/sub/.c\n"),
        (&["d", "-type", "d"], "d/sub\n"),
        (&["d", "-maxdepth", "1", "-type", "f"], "d/a.txt\n"),
        (&["-mtime", "+1"], ""),
        (&["-mtime", "-1", "-size", "-6"], "d/sub/.c\ne\n"),
        (&["-name", "e", "-print0"], "e\0"),
    ] {
        let (printed, _) = person.types(&[&["find"], args].concat(), 0).await;
        assert_eq!(printed, expected, "{args:?}");
    }
    let (_, stderr) = person.types(&["find", "-size", "x"], 2).await;
    assert!(stderr.contains("expected a size"), "{stderr}");
}

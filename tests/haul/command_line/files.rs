//! `put` and `get` of unusual files.

use std::fs;

use haul::storage::SpaceLimits;

use crate::command_line::person::Person;
use crate::harness::TestServer;

#[tokio::test]
async fn a_file_whose_name_cannot_be_stored_is_a_failure_of_put() {
    use std::os::unix::ffi::OsStrExt;
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/a", "A");
    let name = std::ffi::OsStr::from_bytes(b"bad\xff");
    let directory = person.path("d").join(name);
    fs::create_dir(&directory).expect("made");
    fs::write(directory.join("within"), "").expect("written");
    let (_, stderr) = person.types(&["put", "d"], 1).await;
    assert!(stderr.contains("is not UTF-8"), "{stderr}");
    assert!(stderr.contains("1 failed"), "{stderr}");
    assert_eq!(person.types(&["ls", "d"], 0).await.0, "a\n");
}

#[tokio::test]
async fn get_and_put_work_with_pipes() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let (output, _) = person
        .type_with(&["-", "piped"], "put", "through a pipe")
        .await;
    assert!(output.status.success(), "{output:?}");
    let (content, _) = person.types(&["get", "piped", "-"], 0).await;
    assert_eq!(content, "through a pipe");
}

#[tokio::test]
async fn a_special_file_is_refused_without_blocking() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a", "A");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        person.path("fifo"),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .expect("made");
    std::os::unix::fs::symlink("nowhere", person.path("link")).expect("linked");
    for (name, says) in [
        (
            "fifo",
            "haul: put: fifo is neither a file nor a directory; to upload from a pipe, run `haul put - NAME < FIFO`",
        ),
        (
            "link",
            "haul: put: link is a link to a path that does not exist",
        ),
    ] {
        let (_, stderr) = person.types(&["put", name], 1).await;
        assert_eq!(stderr.trim_end(), says);
    }
    person.types(&["demo", "--sessions", "1", "."], 0).await;
}

#[tokio::test]
async fn a_get_of_everything_skips_folders_that_may_not_be_listed() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let inbox = "inbox".parse().expect("a folder name");
    let alice = "alice".parse().expect("a user name");
    let accounts = &server.accounts;
    let made = accounts.add_folder(&inbox, SpaceLimits::default()).await;
    made.expect("a folder");
    let rights = "drop".parse().expect("rights");
    let granted = accounts.grant(&inbox, &alice, rights).await;
    granted.expect("granted");
    person.write("a", "A");
    person.types(&["put", "a"], 0).await;
    let (_, stderr) = person.types(&["get", "/", "copy"], 0).await;
    assert!(
        stderr.contains("/inbox: skipped: you may not list it"),
        "{stderr}"
    );
    assert_eq!(person.read("copy/a"), "A");
    person.types(&["get", "/inbox", "copy"], 1).await;
}

//! The program with a server, as people and scripts use it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output, Stdio};
use std::time::Duration;

use haul::storage::SpaceLimits;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::{Watchdog, haul};
use crate::harness::{PASSWORD, TestServer};

/// The longest time that a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A user of the program, with their own directory and settings.
pub(crate) struct Person {
    pub(crate) temp_dir: TempDir,
    pub(crate) url: String,
}

impl Person {
    fn for_server(server: &TestServer) -> Self {
        Self::for_url(format!("haul+plain://alice@{}", server.address))
    }

    pub(crate) fn for_url(url: String) -> Self {
        Self {
            temp_dir: tempfile::tempdir().expect("a directory"),
            url,
        }
    }

    /// A user that `haul connect` has logged in.
    pub(crate) async fn connected(server: &TestServer) -> Self {
        let person = Self::for_server(server);
        let (output, _) = person
            .type_with(&[&*person.url.clone()], "connect", "")
            .await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        person
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp_dir.path().join("work").join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("there")
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let work = self.temp_dir.path().join("work");
        fs::create_dir_all(&work).expect("made");
        let mut command = haul();
        command
            .args(args)
            .current_dir(work)
            .env("XDG_CONFIG_HOME", self.temp_dir.path().join("config"))
            .env("XDG_STATE_HOME", self.temp_dir.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program with the password in the environment, and with standard input.
    pub(crate) async fn type_with(
        &self,
        args: &[&str],
        first: &str,
        input: &str,
    ) -> (Output, String) {
        let args: Vec<_> = [first].iter().chain(args).copied().collect();
        let mut command = self.command(&args);
        command.env("HAUL_PASSWORD", PASSWORD);
        run(command, input).await
    }

    /// Runs the program, and expects this exit code; returns standard output and standard error.
    pub(crate) async fn types(&self, args: &[&str], code: i32) -> (String, String) {
        let (output, stdout) = run(self.command(args), "").await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        (stdout, stderr)
    }
}

pub(crate) async fn run(mut command: std::process::Command, input: &str) -> (Output, String) {
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut process = command.spawn().expect("the program starts");
        let _watchdog = Watchdog::of_process(&process);
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("read");
        drop(stdin);
        let output = process.wait_with_output().expect("it ends");
        let stdout = String::from_utf8(output.stdout.clone()).expect("text");
        (output, stdout)
    })
    .await
    .expect("no panic")
}

#[tokio::test]
async fn connect_saves_the_login_in_a_private_file() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    let mode = fs::metadata(file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (whoami, _) = person.types(&["--json", "whoami"], 0).await;
    let whoami: Value = serde_json::from_str(&whoami).expect("JSON");
    assert_eq!(whoami["user"], "alice");
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_simultaneous_connects_are_all_saved() {
    let server = TestServer::start().await;
    let users = ["u0", "u1", "u2", "u3", "u4", "u5"];
    for user in users {
        server.add_user(user, SpaceLimits::default()).await;
    }
    let person = Person::for_server(&server);
    let connecting = users.map(|user| {
        let url = format!("haul+plain://{user}@{}", server.address);
        let person = &person;
        async move { person.type_with(&[&url], "connect", "").await }
    });
    for (output, _) in futures::future::join_all(connecting).await {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    let text = fs::read_to_string(file).expect("there");
    for user in users {
        assert!(text.contains(&format!("{user}@")), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_file_of_profiles_is_named_and_not_replaced() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let file = person.temp_dir.path().join("config/haul/servers.toml");
    fs::write(&file, "server = 1\nlogins = \"hunter2\"\n").expect("written");
    let (output, _) = person
        .type_with(&[&*person.url.clone()], "connect", "")
        .await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let (_, listed) = person.types(&["ls"], 1).await;
    for stderr in [stderr, listed] {
        assert!(
            stderr.contains("servers.toml is damaged in line") && !stderr.contains("hunter2"),
            "{stderr}"
        );
    }
    let text = fs::read_to_string(&file).expect("there");
    assert!(text.contains("hunter2"), "{text}");
}

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
async fn connect_with_ask_saves_no_password() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    let (output, _) = person
        .type_with(&["--ask", &person.url.clone()], "connect", "")
        .await;
    assert!(output.status.success());
    let (_, stderr) = person.types(&["ls"], 2).await;
    assert!(
        stderr.starts_with("haul: ls: the password is missing"),
        "{stderr}"
    );
}

#[tokio::test]
async fn each_failure_has_its_exit_code_and_one_line() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let tls = format!("haul://alice@{}", server.address);
    for (args, code, says) in [
        (&["stat", "nowhere"][..], 1, "no such file"),
        (
            &["ls", "--server", "ftp://x"],
            2,
            "the scheme is neither haul nor haul+plain",
        ),
        (
            &["ls", "--server", &tls],
            3,
            "is not known; its certificate has the fingerprint sha256:",
        ),
        (
            &[
                "ls",
                "--server",
                "haul+plain://a@127.0.0.1:1",
                "--token-file",
                "t",
            ],
            3,
            "cannot connect",
        ),
        (&["ls", "--token-file", "t"], 3, "login refused"),
        (&["ls", "--token-file", "missing"], 2, "cannot read missing"),
    ] {
        person.write("t", "haul_nonsense\n");
        let (stdout, stderr) = person.types(args, code).await;
        assert!(stdout.is_empty());
        assert!(
            stderr.starts_with("haul: ") && stderr.contains(says),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
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
async fn json_output_is_one_object_per_line() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("d/a", "A");
    person.write("d/b", "BB");
    let (moved, _) = person.types(&["--json", "put", "d"], 0).await;
    let mut sizes: Vec<_> = moved
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|object| object["size"].as_u64())
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [Some(1), Some(2)]);
    let (entries, _) = person.types(&["--json", "ls", "d"], 0).await;
    let first: Value = serde_json::from_str(entries.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["name"], &first["kind"]),
        (&"a".into(), &"file".into())
    );
}

/// Waits for a process that must end soon; one that hangs is killed, and the test fails.
async fn ends(mut process: Child) -> ExitStatus {
    let id = Pid::from_child(&process);
    let mut waiting = tokio::task::spawn_blocking(move || process.wait());
    let Ok(status) = tokio::time::timeout(PATIENCE, &mut waiting).await else {
        kill_process(id, Signal::KILL).expect("it runs");
        panic!("it hangs");
    };
    status.expect("no panic").expect("it ends")
}

/// The names in a directory.
fn names(directory: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(directory).expect("readable");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

/// The number of unfinished files below a directory.
fn parts(directory: &Path) -> usize {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension() == Some("part".as_ref()))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_output_is_closed_ends_without_a_message() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    for number in 0..600 {
        person.write(&format!("many/{number}"), "content");
    }
    person.types(&["put", "many"], 0).await;
    for args in [
        &["--json", "put", "many", "again"][..],
        &["--json", "get", "many", "back"],
        &["get", "-v", "many", "once more"],
    ] {
        // The pipe is closed before the program can write to it.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = person.command(args);
        let mut process = command.stdout(writer).spawn().expect("started");
        let mut stderr = process.stderr.take().expect("piped");
        // The program has not completed the transfer, so it fails.
        assert_eq!(ends(process).await.code(), Some(1), "{args:?}");
        let mut errors = String::new();
        stderr.read_to_string(&mut errors).expect("text");
        assert_eq!(errors, "", "{args:?}");
    }
    assert_eq!(parts(person.temp_dir.path()), 0);
    while server.staged() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A proxy that stops forwarding after `bytes` bytes from the server, and keeps the connection
/// open.
async fn stalling_after(server: &TestServer, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server.address;
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut far = TcpStream::connect(server).await.expect("the server");
                let (from_client, mut to_client) = near.split();
                let (from_server, mut to_server) = far.split();
                let (mut from_client, mut from_server) = (from_client, from_server.take(bytes));
                let stalled = async {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = stalled => {}
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_get_of_a_directory_leaves_part_files_only_and_exits_with_130() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let large = server.home("alice").join("large");
    fs::create_dir(&large).expect("made");
    for name in ["a", "b"] {
        let file = fs::File::create(large.join(name)).expect("made");
        file.set_len(1 << 30).expect("a large file");
    }
    let address = stalling_after(&server, 8 << 20).await;
    let url = format!("haul+plain://alice@{address}");
    for (args, script) in [(&["get", "large"][..], ""), (&["shell"], "get large\n")] {
        let mut command = person.command(args);
        command
            .env("HAUL_SERVER", &url)
            .env("HAUL_PASSWORD", PASSWORD);
        let mut process = command.spawn().expect("started");
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(script.as_bytes()).expect("read");
        while parts(person.temp_dir.path()) < 2 {
            tokio::task::yield_now().await;
        }
        kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
        assert_eq!(ends(process).await.code(), Some(130), "{args:?}");
        let left = names(&person.path("large"));
        assert_eq!(left.len(), parts(person.temp_dir.path()), "{left:?}");
        fs::remove_dir_all(person.path("large")).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_get_resumes_a_killed_one_and_leaves_files_of_a_running_one_alone() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let home = server.home("alice");
    fs::create_dir(home.join("large")).expect("made");
    for name in ["large/a", "large/b", "alone"] {
        let file = fs::File::create(home.join(name)).expect("made");
        file.set_len(64 << 20).expect("a large file");
    }
    fs::write(home.join("small"), "content").expect("written");
    let address = stalling_after(&server, 8 << 20).await;
    let url = format!("haul+plain://alice@{address}");
    let begin = |args: &[&str]| {
        let mut command = person.command(args);
        command
            .env("HAUL_SERVER", &url)
            .env("HAUL_PASSWORD", PASSWORD);
        command.spawn().expect("started")
    };
    let mut killed = begin(&["get", "large", "alone", "."]);
    while parts(person.temp_dir.path()) < 3 {
        tokio::task::yield_now().await;
    }
    killed.kill().expect("it runs");
    assert_eq!(ends(killed).await.code(), None);
    assert_eq!(parts(person.temp_dir.path()), 3);
    let stale = names(&person.path("large"));
    let live = begin(&["get", "large/a", "large/live"]);
    while names(&person.path("large")).is_subset(&stale) {
        tokio::task::yield_now().await;
    }
    person
        .types(&["get", "large/b", "small", "-t", "large"], 0)
        .await;
    // The part file of large/live is being written; that of large/a exists if the server had begun
    // to send it.
    assert!((1..=2).contains(&parts(&person.path("large"))));
    person.types(&["get", "large", "alone", "."], 0).await;
    assert_eq!(parts(person.temp_dir.path()), 1);
    kill_process(Pid::from_child(&live), Signal::INT).expect("it runs");
    assert_eq!(ends(live).await.code(), Some(130));
    person.types(&["get", "large/a", "large/live"], 0).await;
    assert_eq!(parts(person.temp_dir.path()), 0);
    assert_eq!(person.read("large/small"), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_put_leaves_no_file_and_exits_with_130() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let mut process = person
        .command(&["put", "-", "half"])
        .spawn()
        .expect("started");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(&vec![7; 1 << 20]).expect("read");
    while server.staged() == 0 {
        tokio::task::yield_now().await;
    }
    kill_process(Pid::from_child(&process), Signal::INT).expect("it runs");
    assert_eq!(ends(process).await.code(), Some(130));
    person.types(&["stat", "half"], 1).await;
}

#[tokio::test]
async fn the_shell_runs_a_script_to_its_end_and_reports_failures() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a b", "A");
    let script = "mkdir \"my dir\"\ncd my\\ dir\nput 'a b'\n# a comment\npwd\nls\n";
    let (output, stdout) = person.type_with(&[], "shell", script).await;
    assert_eq!(
        (output.status.code(), &*stdout),
        (Some(0), "/my dir\na b\n")
    );
    let script = "cd nowhere\nfly\npwd\nquit\nls\n";
    let (output, stdout) = person.type_with(&[], "shell", script).await;
    assert_eq!((output.status.code(), &*stdout), (Some(1), "/\n"));
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

#[tokio::test]
async fn the_help_of_the_shell_shows_its_own_commands() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    for (line, usage) in [
        ("help cd", "Usage: cd [PATH]"),
        ("help put", "Usage: put [OPTIONS] LOCAL… [REMOTE]"),
        ("mkdir --help", "Usage: mkdir [OPTIONS] <PATH>..."),
    ] {
        let (output, stdout) = person.type_with(&[], "shell", line).await;
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout.lines().any(|line| line == usage), "{stdout}");
    }
}

#[tokio::test]
async fn connect_with_a_wrong_password_prints_one_line() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    person.write("password", "wrong\n");
    let args = ["connect", &*person.url, "--password-file", "password"];
    let (_, stderr) = person.types(&args, 3).await;
    assert!(stderr.starts_with("haul: connect: login refused: "));
    assert!(!stderr.contains("anew"), "{stderr}");
}

#[tokio::test]
async fn the_demo_succeeds() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    fs::write(temp_dir.path().join("file"), "content").expect("written");
    let mut command = haul();
    command
        .args(["demo", "--sessions", "2"])
        .arg(temp_dir.path() as &Path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (output, stdout) = run(command, "").await;
    assert!(output.status.success(), "{output:?}");
    assert!(stdout.contains("every digest agreed"), "{stdout}");
}

#[tokio::test]
async fn a_hint_names_only_options_of_the_command() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("a", "A");
    person.types(&["mkdir", "d"], 0).await;
    person.types(&["put", "a"], 0).await;
    person.types(&["put", "a", "b"], 0).await;
    for (args, says, does_not_say) in [
        (
            &["mkdir", "d"][..],
            "with `-p`, an existing directory is no error",
            "--if-exists",
        ),
        (
            &["mv", "a", "/a"],
            "the source and the target are the same",
            "--if-exists",
        ),
        (
            &["cp", "./a", "a"],
            "the source and the target are the same",
            "--if-exists",
        ),
        (&["mv", "a", "b"], "--if-exists", "same"),
        (&["mv", "d", "b"], "b", "--if-exists"),
        (&["put", "nope"], "haul: put: cannot read nope", "put nope"),
        (&["get", "a", "no/b"], "no such directory: no", "os error"),
    ] {
        let (_, stderr) = person.types(args, 1).await;
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!stderr.contains(does_not_say), "{args:?}: {stderr}");
    }
    let (_, stderr) = person.types(&["hash", "--digest", "sha1", "a"], 2).await;
    assert!(stderr.contains("one of blake3, sha256, md5"), "{stderr}");
    let mut command = person.command(&["ls"]);
    command.env("HAUL_PASSWORD", "wrong");
    let (output, _) = run(command, "").await;
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("came from HAUL_PASSWORD"), "{stderr}");
}

#[tokio::test]
async fn a_token_is_not_used_for_another_user_than_the_address_names() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    let bob = "bob".parse().expect("a user name");
    let token = server.accounts.add_token(&bob, "", None).await;
    person.write("t", token.expect("a token").expose());
    let says = "the token is bob's, not alice's";
    for args in [
        &["--server", &person.url, "--token-file", "t", "whoami"][..],
        &["connect", &person.url, "--token-file", "t"],
    ] {
        let (_, stderr) = person.types(args, 3).await;
        assert!(stderr.contains(says), "{stderr}");
    }
    let nobody = format!("haul+plain://{}", server.address);
    let args = ["--server", &nobody, "--token-file", "t", "whoami"];
    assert!(person.types(&args, 0).await.0.contains("bob"));
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

#[tokio::test]
async fn discover_lists_the_answering_servers_and_fails_without_any() {
    let server = TestServer::start().await;
    let person = Person::for_server(&server);
    let address = server.address.to_string();
    let (out, _) = person
        .types(&["discover", "--wait", "0.5", &address], 0)
        .await;
    let lines: Vec<_> = out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("ADDRESS"), "{out}");
    assert!(lines[1].starts_with(&address) && lines[1].ends_with(haul::server::SERVER_VERSION));
    let (out, _) = person
        .types(&["discover", "--json", "--wait", "0.5", &address], 0)
        .await;
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["address"], address);
    assert_eq!(found["protocol"], 1);
    server.stop().await;
    let (out, errors) = person
        .types(&["discover", "--wait", "0.1", &address], 1)
        .await;
    assert!(out.is_empty() && errors.contains("no server"), "{errors}");
    person.types(&["discover", "--wait", "x"], 2).await;
    person.types(&["discover", "attic:x"], 2).await;
}

//! Exit codes, messages, JSON output and the shell.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::command_line::person::{Person, run};
use crate::daemon::haul;
use crate::harness::TestServer;

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

//! Commands with wildcards and with several paths.

use serde_json::Value;

use crate::command_line::{Person, run};
use crate::harness::TestServer;

/// A user with files on the server: `a.txt`, `b.txt`, `c.md`, `a*b`, `[1]` and `d/e.txt`.
async fn person_with_files(server: &TestServer) -> Person {
    let person = Person::connected(server).await;
    for name in ["a.txt", "b.txt", "c.md", "a*b", "[1]", "d/e.txt"] {
        person.write(name, name);
    }
    let names = ["a.txt", "b.txt", "c.md", "a*b", "[1]", "d"];
    person
        .types(&[&["put", "-t", "."], &names[..]].concat(), 0)
        .await;
    person
}

async fn listed(person: &Person, args: &[&str]) -> String {
    person.types(&[&["ls"], args].concat(), 0).await.0
}

#[tokio::test]
async fn a_pattern_expands_to_the_matching_names_on_the_server() {
    let server = TestServer::start().await;
    let person = person_with_files(&server).await;
    for (pattern, names) in [
        ("*.txt", "a.txt\nb.txt\n"),
        ("/?.[mt]*", "/a.txt\n/b.txt\n/c.md\n"),
        ("*/e.txt", "d/e.txt\n"),
        ("d*/*", "d/e.txt\n"),
        (r"a\*b", "a*b\n"),
        ("[1]", "[1]\n"),
    ] {
        assert_eq!(listed(&person, &[pattern]).await, names, "{pattern}");
    }
    let (_, stderr) = person.types(&["ls", "*.pdf"], 1).await;
    assert_eq!(
        stderr,
        "haul: ls: no file or directory on the server matches *.pdf\n"
    );
    person.types(&["cp", "*.txt", "d/"], 0).await;
    assert_eq!(listed(&person, &["d"]).await, "a.txt\nb.txt\ne.txt\n");
    person.types(&["mv", "d/[ab].txt", "/"], 1).await;
    person.types(&["get", "d/*", "-t", "back"], 0).await;
    assert_eq!(person.read("back/e.txt"), "d/e.txt");
    person.types(&["rm", r"a\*b"], 0).await;
    person.types(&["rm", "?.txt"], 0).await;
    assert_eq!(listed(&person, &[]).await, "[1]\nc.md\nd/\n");
}

#[tokio::test]
async fn in_the_shell_a_quoted_wildcard_is_part_of_the_name() {
    let server = TestServer::start().await;
    let person = person_with_files(&server).await;
    let script = "rm 'a*b'\nrm \"[1]\"\nls *.txt\n";
    let (output, stdout) = person.type_with(&[], "shell", script).await;
    assert_eq!(
        (output.status.code(), &*stdout),
        (Some(0), "a.txt\nb.txt\n")
    );
    assert_eq!(listed(&person, &[]).await, "a.txt\nb.txt\nc.md\nd/\n");
}

#[tokio::test]
async fn a_command_with_several_paths_continues_after_a_failure() {
    let server = TestServer::start().await;
    let person = person_with_files(&server).await;
    for (args, lines) in [
        (&["rm", "no", "a.txt", "*.pdf", "b.txt"][..], 3),
        (&["cp", "no", "c.md", "d"], 1),
        (&["mv", "no", "c.md", "d/"], 2),
        (&["get", "no", "d/e.txt", "-t", "back"], 2),
        (&["ls", "no", "d"], 1),
    ] {
        let (_, stderr) = person.types(args, 1).await;
        assert_eq!(stderr.lines().count(), lines, "{args:?}: {stderr}");
    }
    assert_eq!(listed(&person, &[]).await, "[1]\na*b\nc.md\nd/\n");
    assert_eq!(listed(&person, &["d"]).await, "c.md\ne.txt\n");
    assert_eq!(person.read("back/e.txt"), "d/e.txt");
}

#[tokio::test]
async fn ls_accepts_the_flags_of_the_unix_ls() {
    let server = TestServer::start().await;
    let person = person_with_files(&server).await;
    let long = listed(&person, &["-lh", "c.md"]).await;
    assert!(
        long.starts_with("4 B  ") && long.ends_with("  c.md\n"),
        "{long}"
    );
    assert_eq!(listed(&person, &["-h", "d"]).await, "e.txt\n");
    assert_eq!(listed(&person, &["-r", "*.txt"]).await, "b.txt\na.txt\n");
    assert_eq!(listed(&person, &["-la", "d"]).await.lines().count(), 1);
    person.types(&["cp", "-r", "d", "copy"], 0).await;
    person.types(&["rm", "-rf", "copy", "nothing"], 0).await;
    let help = listed(&person, &["--help"]).await;
    assert!(help.contains("Usage: haul ls"), "{help}");
}

#[tokio::test]
async fn with_json_an_error_is_an_object_on_standard_error() {
    let server = TestServer::start().await;
    let person = person_with_files(&server).await;
    for (args, exit, code) in [
        (&["--json", "stat", "no"][..], 1, "not_found"),
        (&["--json", "ls", "*.pdf"], 1, "not_found"),
        (&["--json", "stat"], 2, "usage"),
        (&["--json", "put", "no"], 1, "local_file"),
    ] {
        let (_, stderr) = person.types(args, exit).await;
        let error: Value = serde_json::from_str(&stderr).expect(&stderr);
        assert_eq!(error["code"], code, "{args:?}: {stderr}");
        assert!(error["message"].is_string(), "{stderr}");
    }
}

#[tokio::test]
async fn without_a_command_the_help_is_printed_whatever_the_environment_contains() {
    let person = Person::for_url("haul://nobody@127.0.0.1:1".into());
    for server in [None, Some("haul://nobody@127.0.0.1:1")] {
        let mut command = person.command(&[]);
        if let Some(server) = server {
            command.env("HAUL_SERVER", server);
        }
        let (output, _) = run(command, "").await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for part in ["Examples:", "Usage: haul [OPTIONS] <COMMAND>", "whoami"] {
            assert!(stderr.contains(part), "{stderr}");
        }
    }
}

//! Completion of paths on the server in bash, zsh and fish, by the scripts that haul generates.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command_line::Person;
use crate::daemon::haul;
use crate::harness::TestServer;
use crate::requirements;

/// The script that makes each shell print its completions of the last word of `line`.
const SHELLS: [(&str, &str); 3] = [
    (
        "bash",
        "source \"$0\"; COMP_LINE=\"$1 $2\"; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($1); word=$2; \
         while [[ $word == *:?* ]]; do before=${word%%:*}; word=${word#*:}; \
         COMP_WORDS+=(${before:+\"$before\"} :); done; \
         COMP_WORDS+=(\"$word\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
         _haul_with_paths haul \"$2\" \"$1\"; printf '%s\\n' \"${COMPREPLY[@]}\"",
    ),
    (
        "zsh",
        "compdef() { }; _arguments() { return 1 }; \
         compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- \"$@\" }; \
         source \"$0\"; words=(${=1} \"$2\"); CURRENT=$#words; _haul",
    ),
    (
        "fish",
        "source $argv[1]; complete -C \"$argv[2] $argv[3]\" | string replace -r '\\t.*' ''",
    ),
];

/// Writes the script of `shell`, and returns its path.
fn script(person: &Person, shell: &str) -> std::path::PathBuf {
    let output = haul().args(["completions", shell]).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let path = person.temp_dir.path().join(format!("completions.{shell}"));
    fs::write(&path, output.stdout).expect("written");
    path
}

/// The sorted completions of `shell` for `word` after `line`.
async fn offered(
    person: &Person,
    (shell, ask): (&str, &str),
    line: &str,
    word: &str,
) -> Vec<String> {
    let program = person.command(&[]);
    let directory = Path::new(program.get_program()).parent();
    let mut path = OsString::from(directory.expect("a directory"));
    path.push(":");
    path.push(std::env::var_os("PATH").expect("a path"));
    let mut command = Command::new(shell);
    command.current_dir(person.temp_dir.path().join("work"));
    match shell {
        "bash" => command.arg("--norc"),
        "zsh" => command.arg("-f"),
        _ => command.arg("--no-config"),
    };
    command
        .args(["-c", ask])
        .arg(script(person, shell))
        .args([line, word]);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("PATH", path);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("it runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "{shell}: {line} {word}"
    );
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

fn installed(test: &str) -> Vec<(&'static str, &'static str)> {
    let shells = SHELLS.into_iter();
    shells
        .filter(|(shell, _)| {
            requirements::program(shell, "--version", &format!("{test} ({shell})"))
        })
        .collect()
}

#[tokio::test]
async fn each_shell_completes_paths_on_the_server() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    person.write("my dir/it's.txt", "");
    person.write("my dir/sub/a", "");
    person.write("mine.txt", "");
    person
        .types(&["put", "-t", ".", "my dir", "mine.txt"], 0)
        .await;
    fs::remove_dir_all(person.path("")).expect("removed");
    fs::create_dir(person.path("")).expect("made");
    for shell in installed("each_shell_completes_paths_on_the_server") {
        for (line, word, paths) in [
            ("haul ls", "m", &["mine.txt", "my dir/"][..]),
            ("haul cat", r"my\ ", &["my dir/"]),
            (
                "haul --quiet rm",
                r"my\ dir/",
                &["my dir/it's.txt", "my dir/sub/"],
            ),
            ("haul get", "min", &["mine.txt"]),
            ("haul ls", "nothing", &[]),
        ] {
            let found = offered(&person, shell, line, word).await;
            assert_eq!(found, paths, "{}: {line} {word}", shell.0);
        }
        // Readline replaces what is behind the colon, the other shells the whole word.
        let mark = if shell.0 == "bash" { "" } else { ":" };
        for word in [":m", ":"] {
            let found = offered(&person, shell, "haul sync --delete", word).await;
            let expected = ["mine.txt", "my dir/"].map(|path| format!("{mark}{path}"));
            assert_eq!(found, expected, "{}: {word}", shell.0);
        }
    }
}

#[tokio::test]
async fn completion_offers_nothing_if_the_server_is_absent_or_unknown() {
    let server = TestServer::start().await;
    let person = Person::connected(&server).await;
    server.stop().await;
    let stranger = Person::for_url(person.url.clone());
    fs::create_dir_all(stranger.path("")).expect("made");
    for shell in installed("completion_offers_nothing_if_the_server_is_absent_or_unknown") {
        for person in [&person, &stranger] {
            let found = offered(person, shell, "haul ls", "m").await;
            assert!(found.is_empty(), "{}: {found:?}", shell.0);
        }
    }
}

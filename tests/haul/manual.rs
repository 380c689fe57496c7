//! The manual pages and the completions: made from the command line's definition, and sound.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::haul;
use crate::requirements;

/// The commands that the help of `words` lists.
fn commands(words: &[&str]) -> Vec<String> {
    let output = haul().args(words).arg("--help").output().expect("it runs");
    let help = String::from_utf8(output.stdout).expect("text");
    // The program lists its commands in groups, before its options.
    let list = if words.is_empty() {
        let (list, _) = help.split_once("\nOptions:\n").expect("options");
        let (_, list) = list.split_once("Usage: ").expect("a usage");
        list
    } else {
        let Some((_, list)) = help.split_once("Commands:\n") else {
            return Vec::new();
        };
        let end = list.find("\n\n").unwrap_or(list.len());
        &list[..end]
    };
    let names = list
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "help");
    names.map(str::to_owned).collect()
}

/// The names of the pages of a command and its subcommands.
fn page_names(words: &[&str]) -> Vec<String> {
    let mut names = vec![[&["haul"], words].concat().join("-")];
    for command in commands(words) {
        names.extend(page_names(&[words, &[&command]].concat()));
    }
    names
}

fn pages() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let output = haul().arg("man").arg(place.path().join("man1")).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    place
}

fn page(place: &Path, name: &str) -> String {
    let path = place.join("man1").join(format!("{name}.1"));
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_command_has_a_page_with_its_exit_codes() {
    let place = pages();
    let names = page_names(&[]);
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        let text = page(place.path(), name);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(
                heading.iter().any(|heading| text.contains(heading)),
                "{name}: {section}"
            );
        }
    }
    let written = fs::read_dir(place.path().join("man1")).expect("there");
    assert_eq!(written.count(), names.len(), "and nothing else has one");
}

#[test]
fn the_pages_of_the_daemon_and_of_the_client_name_what_they_read() {
    let place = pages();
    let serve = page(place.path(), "haul-serve");
    for word in [
        "HAUL_CONFIG",
        "HAUL_DATA",
        "HAUL_ADMIN_PASSWORD_FILE",
        "NOTIFY_SOCKET",
        "FILES",
    ] {
        assert!(serve.contains(word), "{word}: {serve}");
    }
    let get = page(place.path(), "haul-get");
    for word in [
        "HAUL_SERVER",
        "HAUL_PASSWORD",
        "known_servers.toml",
        "haul\\fR(1)",
    ] {
        assert!(get.contains(word), "{word}: {get}");
    }
    assert!(!serve.contains("HAUL_PASSWORD\n"), "{serve}");
}

#[test]
fn groff_has_nothing_to_say_against_any_page() {
    let test = "groff_has_nothing_to_say_against_any_page";
    if !requirements::program("groff", "--version", test) {
        return;
    }
    let place = pages();
    for entry in fs::read_dir(place.path().join("man1")).expect("there") {
        let path = entry.expect("there").path();
        let groff = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww"])
            .arg(&path)
            .output();
        let groff = groff.expect("it runs");
        let errors = String::from_utf8_lossy(&groff.stderr);
        assert!(groff.status.success(), "{}: {errors}", path.display());
        assert_eq!(errors, "", "{}", path.display());
    }
}

fn completions(shell: &str, place: &Path) -> std::path::PathBuf {
    let output = haul()
        .args(["completions", shell])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let path = place.join(shell);
    fs::write(&path, output.stdout).expect("written");
    path
}

#[test]
fn each_shell_can_read_its_completions() {
    let place = tempfile::tempdir().expect("a directory");
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let test = format!("each_shell_can_read_its_completions ({shell})");
        if !requirements::program(shell, "--version", &test) {
            continue;
        }
        let script = completions(shell, place.path());
        let output = Command::new(shell).arg(check).arg(script).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{shell}: {output:?}");
        assert_eq!(output.stderr, b"", "{shell}");
    }
}

#[test]
fn bash_completes_commands_their_options_and_commands_of_theirs() {
    let test = "bash_completes_commands_their_options_and_commands_of_theirs";
    if !requirements::program("bash", "--version", test) {
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let script = completions("bash", place.path());
    let complete = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let ask = format!(
            "source \"$0\"; COMP_WORDS=({line}); COMP_CWORD={}; _haul haul '{last}' '{before}'; \
             echo \"${{COMPREPLY[*]}}\"",
            words.len() - 1
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &ask])
            .arg(&script)
            .output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim_end()
            .to_owned()
    };
    assert_eq!(complete("haul check"), "check-config");
    assert_eq!(complete("haul user pass"), "passwd");
    assert_eq!(complete("haul serve --lis"), "--listen");
}

//! The manual pages and the completions, which are generated from the definition of the command
//! line.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::haul;
use crate::requirements;

/// The commands that the help of `words` lists.
fn commands(words: &[&str]) -> Vec<String> {
    let output = haul().args(words).arg("--help").output().expect("it runs");
    let help = String::from_utf8(output.stdout).expect("text");
    // The help lists the commands in groups before the options.
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
    let temp_dir = tempfile::tempdir().expect("a directory");
    let output = haul().arg("man").arg(temp_dir.path().join("man1")).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    temp_dir
}

fn page(temp_dir: &Path, name: &str) -> String {
    let path = temp_dir.join("man1").join(format!("{name}.1"));
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_command_has_a_page_with_its_exit_codes() {
    let temp_dir = pages();
    let names = page_names(&[]);
    assert!(names.len() > 40, "{names:?}");
    for name in &names {
        let text = page(temp_dir.path(), name);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(
                heading.iter().any(|heading| text.contains(heading)),
                "{name}: {section}"
            );
        }
    }
    let written = fs::read_dir(temp_dir.path().join("man1")).expect("there");
    assert_eq!(written.count(), names.len(), "and nothing else has one");
}

#[test]
fn the_pages_of_the_daemon_and_of_the_client_name_their_files_and_variables() {
    let temp_dir = pages();
    let serve = page(temp_dir.path(), "haul-serve");
    for word in [
        "HAUL_CONFIG",
        "HAUL_DATA",
        "HAUL_ADMIN_PASSWORD_FILE",
        "NOTIFY_SOCKET",
        "FILES",
    ] {
        assert!(serve.contains(word), "{word}: {serve}");
    }
    let get = page(temp_dir.path(), "haul-get");
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
fn groff_accepts_every_page() {
    let test = "groff_accepts_every_page";
    if !requirements::program("groff", "--version", test) {
        return;
    }
    let temp_dir = pages();
    for entry in fs::read_dir(temp_dir.path().join("man1")).expect("there") {
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

fn completions(shell: &str, temp_dir: &Path) -> std::path::PathBuf {
    let output = haul()
        .args(["completions", shell])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let path = temp_dir.join(shell);
    fs::write(&path, output.stdout).expect("written");
    path
}

#[test]
fn each_shell_can_read_its_completions() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let test = format!("each_shell_can_read_its_completions ({shell})");
        if !requirements::program(shell, "--version", &test) {
            continue;
        }
        let script = completions(shell, temp_dir.path());
        let output = Command::new(shell).arg(check).arg(script).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{shell}: {output:?}");
        assert_eq!(output.stderr, b"", "{shell}");
    }
}

#[test]
fn bash_completes_commands_subcommands_and_options() {
    let test = "bash_completes_commands_subcommands_and_options";
    if !requirements::program("bash", "--version", test) {
        return;
    }
    let temp_dir = tempfile::tempdir().expect("a directory");
    let script = completions("bash", temp_dir.path());
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

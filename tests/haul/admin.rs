//! The commands for operators on the server's machine, from a terminal and from scripts.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use haul::accounts::Accounts;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{PASSWORD, TestServer};

/// The result of a command.
#[derive(Debug, PartialEq)]
struct CommandResult {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs haul in `directory`, with no configuration but its arguments and `env`.
fn haul(directory: &Path, env: &[(&str, &str)], args: &[&str], input: &str) -> CommandResult {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAUL_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .current_dir(directory)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("haul starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that reads no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("haul ends");
    CommandResult {
        code: output.status.code().expect("no signal"),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A directory to run commands in, whose data directory is ./haul-data.
struct DataDirectory(TempDir);

impl DataDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Runs a command line that must succeed; returns its standard output.
    fn ok(&self, line: &str, input: &str) -> String {
        let done = self.run(line, input);
        assert_eq!(done.code, 0, "{line}: {done:?}");
        done.stdout
    }

    /// Runs a command line that must fail; returns its standard error.
    fn no(&self, line: &str) -> String {
        let done = self.run(line, "");
        assert_eq!((done.code, &*done.stdout), (1, ""), "{line}: {done:?}");
        done.stderr
    }

    fn run(&self, line: &str, input: &str) -> CommandResult {
        let args: Vec<_> = line.split(' ').collect();
        haul(self.0.path(), &[], &args, input)
    }

    async fn accounts(&self) -> Accounts {
        let accounts = Accounts::open(&self.0.path().join("haul-data")).await;
        accounts.expect("opens")
    }
}

/// The objects of a list, without their creation times.
fn objects(lines: &str) -> Vec<Value> {
    let object = |line: &str| {
        let mut object: Value = serde_json::from_str(line).expect("JSON");
        let created = object
            .as_object_mut()
            .and_then(|object| object.remove("created"));
        assert!(created.is_some_and(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))));
        object
    };
    lines.lines().map(object).collect()
}

#[tokio::test]
async fn users_are_added_changed_listed_and_removed_before_the_first_start() {
    let data_directory = DataDirectory::new();
    let done = data_directory.run("user add alice --admin --quota 10GiB", "correct horse\n");
    assert_eq!(
        done,
        CommandResult {
            code: 0,
            stdout: String::new(),
            stderr: "making the data directory haul-data\nadded user alice\n".into()
        }
    );
    data_directory.ok("user add bob --files 12", "hunter2 hunter2\n");
    assert_eq!(
        data_directory.ok("user list", ""),
        "NAME   ROLE   QUOTA     FILES  STATE\n\
         alice  admin  10.0 GiB  -\n\
         bob    user   -         12\n"
    );
    data_directory.ok("user set bob --disable --quota 1000 --files none", "");
    data_directory.ok("user passwd alice", "battery staple\n");
    assert_eq!(
        objects(&data_directory.ok("user list --json", "")),
        [
            json!({"name": "alice", "admin": true, "disabled": false,
                   "quota": 10_u64 << 30, "files": null}),
            json!({"name": "bob", "admin": false, "disabled": true,
                   "quota": 1000, "files": null}),
        ]
    );
    data_directory.ok("user remove bob", "");
    assert_eq!(objects(&data_directory.ok("user list --json", "")).len(), 1);
    let accounts = data_directory.accounts().await;
    let login = accounts
        .log_in_with_password("alice", "battery staple")
        .await;
    assert!(login.expect("the new password").admin);
    assert!(
        accounts
            .log_in_with_password("alice", "correct horse")
            .await
            .is_err()
    );
}

#[test]
fn folders_are_added_granted_listed_revoked_and_removed() {
    let data_directory = DataDirectory::new();
    data_directory.ok("user add alice", "hunter2 hunter2\n");
    data_directory.ok("user add bob", "hunter2 hunter2\n");
    data_directory.ok("folder add team --quota 1MiB", "");
    data_directory.ok("folder grant team alice rw", "");
    data_directory.ok("folder grant team bob list,write", "");
    assert_eq!(
        data_directory.ok("folder list", ""),
        "NAME  QUOTA    FILES  MEMBERS\n\
         team  1.0 MiB  -      alice=rw bob=list,write\n"
    );
    data_directory.ok("folder revoke team alice", "");
    assert_eq!(
        objects(&data_directory.ok("folder list --json", "")),
        [json!({"name": "team", "quota": 1 << 20, "files": null,
                "members": [{"user": "bob", "rights": ["list", "write"]}]})]
    );
    data_directory.ok("folder remove team", "");
    assert_eq!(data_directory.ok("folder list --json", ""), "");
}

#[tokio::test]
async fn a_new_token_is_printed_alone_on_standard_output_and_logs_in() {
    let data_directory = DataDirectory::new();
    data_directory.ok("user add alice", "hunter2 hunter2\n");
    let printed = data_directory.ok("token add alice --label backup --expires 90d", "");
    let token = printed.split_whitespace().last().expect("a word");
    let accounts = data_directory.accounts().await;
    let (account, _) = accounts.log_in_with_token(token).await.expect("logs in");
    assert_eq!(account.name.as_str(), "alice");
    let list = data_directory.ok("token list alice", "");
    assert!(list.contains("backup") && !list.contains(token), "{list}");
    let tokens = objects(&data_directory.ok("token list alice --json", ""));
    assert_eq!(
        (&tokens[0]["id"], &tokens[0]["label"]),
        (&json!(1), &json!("backup"))
    );
    data_directory.ok("token remove alice 1", "");
    assert!(accounts.log_in_with_token(token).await.is_err());
}

#[test]
fn an_operator_command_that_fails_prints_one_line_with_advice() {
    let data_directory = DataDirectory::new();
    assert_eq!(
        data_directory.no("user list"),
        "haul: user: haul-data has no accounts; name the data directory with --data, \
         or create one with `haul user add`\n"
    );
    assert!(!data_directory.0.path().join("haul-data").exists());
    data_directory.ok("user add alice", "hunter2 hunter2\n");
    for (line, message) in [
        (
            "user add alice",
            "user alice already exists; choose another name, or change the user with `haul user set`",
        ),
        (
            "user add bob",
            "there is no password on standard input; write it there as one line, or use a terminal",
        ),
        (
            "user remove bob",
            "there is no user bob; `haul user list` shows all users",
        ),
        (
            "folder grant team alice rw",
            "there is no folder team; `haul folder list` shows all folders",
        ),
        (
            "token remove alice 7",
            "user alice has no token 7; `haul token list alice` shows all tokens",
        ),
    ] {
        let (command, _) = line.split_once(' ').expect("two words");
        assert_eq!(
            data_directory.no(line),
            format!("haul: {command}: {message}\n")
        );
    }
}

#[test]
fn a_short_password_is_refused_with_the_minimum_of_the_settings() {
    let data_directory = DataDirectory::new();
    let refused = |line: &str, env: &[(&str, &str)], minimum: u32| {
        let args: Vec<_> = line.split(' ').collect();
        let done = haul(data_directory.0.path(), env, &args, "1234567\n");
        assert_eq!(done.code, 1, "{line}: {done:?}");
        let message = format!(
            "haul: user: the password is too short; choose one of at least {minimum} characters\n"
        );
        assert!(done.stderr.ends_with(&message), "{done:?}");
    };
    refused("user add alice", &[], 8);
    let seven = [("HAUL_AUTH_MIN_PASSWORD", "7")];
    let done = haul(
        data_directory.0.path(),
        &seven,
        &["user", "add", "alice"],
        "1234567\n",
    );
    assert_eq!(done.code, 0, "{done:?}");
    refused("user passwd alice", &[("HAUL_AUTH_MIN_PASSWORD", "9")], 9);
}

#[test]
fn a_token_expires_after_a_year_unless_its_maker_says_otherwise() {
    let data_directory = DataDirectory::new();
    data_directory.ok("user add alice", "hunter2 hunter2\n");
    data_directory.ok("token add alice", "");
    data_directory.ok("token add alice --expires never", "");
    let tokens = objects(&data_directory.ok("token list alice --json", ""));
    let expires = tokens[0]["expires"].as_str().expect("a time");
    let expires: jiff::Timestamp = expires.parse().expect("a time");
    let days = expires.duration_since(jiff::Timestamp::now()).as_hours() / 24;
    assert!((364..=365).contains(&days), "{days}");
    assert_eq!(tokens[1]["expires"], Value::Null);
}

#[test]
fn wrong_arguments_end_with_2_and_change_nothing() {
    let data_directory = DataDirectory::new();
    for line in [
        "user",
        "user add ../x",
        "user add Alice",
        "user add alice --quota lots",
        "user set alice",
        "user set alice --admin --no-admin",
        "folder grant team alice everything",
        "token add alice --expires yesterday",
        "completions tcsh",
        "nonsense",
    ] {
        let done = data_directory.run(line, "hunter2 hunter2\n");
        assert_eq!((done.code, &*done.stdout), (2, ""), "{line}: {done:?}");
    }
    assert!(!data_directory.0.path().join("haul-data").exists());
}

#[test]
fn the_data_directory_is_that_of_the_flag_then_the_environment_then_the_configuration() {
    let data_directory = DataDirectory::new();
    let directory = data_directory.0.path();
    std::fs::write(
        directory.join("haul.toml"),
        "[server]\ndata = \"of-file\"\n",
    )
    .expect("written");
    let add = [
        "user",
        "add",
        "alice",
        "--config",
        "haul.toml",
        "--data",
        "of-flag",
    ];
    let env = [("HAUL_DATA", "of-env"), ("HAUL_SERVER_DATA", "of-setting")];
    for (env, args, expected) in [
        (&env[..], &add[..], "of-flag"),
        (&env[..], &add[..5], "of-env"),
        (&env[1..], &add[..5], "of-setting"),
        (&[], &add[..5], "of-file"),
        (&[], &add[..3], "haul-data"),
    ] {
        assert!(!directory.join(expected).exists());
        let done = haul(directory, env, args, "hunter2 hunter2\n");
        assert_eq!(done.code, 0, "{done:?}");
        assert!(
            directory.join(expected).join("haul.db").exists(),
            "{expected}"
        );
    }
}

#[tokio::test]
async fn a_running_server_sees_what_the_commands_change() {
    let server = TestServer::start().await;
    let data = server.data().to_str().expect("UTF-8");
    let ok = |args: &[&str], input: &str| {
        let done = haul(server.data(), &[("HAUL_DATA", data)], args, input);
        assert_eq!(done.code, 0, "{done:?}");
    };
    ok(&["user", "add", "carol"], &format!("{PASSWORD}\n"));
    ok(&["folder", "add", "team"], "");
    ok(&["folder", "grant", "team", "carol", "r"], "");
    let mut carol = server.log_in("carol").await;
    let me = carol.ok(json!({"cmd": "whoami"})).await;
    assert_eq!(
        me["folders"],
        json!([{"name": "team", "rights": ["list", "read"]}])
    );
    ok(&["user", "remove", "carol"], "");
    carol.closes().await;
    let mut again = server.connect().await;
    let login = json!({"cmd": "login", "user": "carol", "password": PASSWORD});
    again.fails(login, "login_failed").await;
}

#[test]
fn check_config_accepts_every_file_that_comes_with_haul_and_prints_what_it_says() {
    let data_directory = DataDirectory::new();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for file in config.read_dir().expect("a directory") {
        let file = file.expect("an entry").path();
        if file.is_dir() {
            // For the service manager.
            continue;
        }
        let file = file.to_str().expect("UTF-8");
        let env = [("HAUL_LIMITS_SESSIONS", "7")];
        let done = haul(data_directory.0.path(), &env, &["check-config", file], "");
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.contains("\nsessions = 7\n"), "{}", done.stdout);
        assert_eq!(done.stderr, format!("{file}: the configuration is valid\n"));
        let done = haul(
            data_directory.0.path(),
            &env,
            &["check-config", "--json", "-q", file],
            "",
        );
        let object: Value = serde_json::from_str(&done.stdout).expect("JSON");
        assert_eq!(
            (&object["limits"]["sessions"], &*done.stderr),
            (&json!(7), "")
        );
    }
}

#[test]
fn check_config_reports_each_mistake_with_its_line() {
    let data_directory = DataDirectory::new();
    std::fs::write(
        data_directory.0.path().join("haul.toml"),
        "[limits]\nsesions = 7\n",
    )
    .expect("written");
    let wrong = |line: &str| {
        let done = data_directory.run(line, "");
        assert_eq!((done.code, &*done.stdout), (2, ""), "{line}: {done:?}");
        done.stderr
    };
    let message = wrong("check-config haul.toml");
    assert!(
        message.starts_with(
            "haul: check-config: haul.toml, line 2: there is no setting limits.sesions; "
        ),
        "{message}"
    );
    let text = "[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n[limits]\nsessions = 0\n";
    std::fs::write(data_directory.0.path().join("haul.toml"), text).expect("written");
    let message = wrong("check-config haul.toml");
    let lines: Vec<_> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "haul: check-config: haul.toml, line 5: limits.sessions is 0, but must be a whole number \
             from 1 to 1000000",
            "haul: check-config: cannot read c.pem: no such file or directory; the user that runs \
             haul must be able to read the files named in [tls]",
            "haul: check-config: cannot read k.pem: no such file or directory; the user that runs \
             haul must be able to read the files named in [tls]",
        ]
    );
    let message = wrong("check-config missing.toml");
    assert!(
        message.starts_with("haul: check-config: cannot read the configuration missing.toml: "),
        "{message}"
    );
}

#[test]
fn check_config_lists_each_mistake_for_programs() {
    let data_directory = DataDirectory::new();
    let text = "[limits]\nsesions = 7\nsessions = 0\n";
    std::fs::write(data_directory.0.path().join("haul.toml"), text).expect("written");
    let done = data_directory.run("check-config --json haul.toml", "");
    let object: Value = serde_json::from_str(&done.stderr).expect("JSON");
    let problems = object["problems"].as_array().expect("a list");
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (&problem["file"], &problem["line"]))
        .collect();
    let file = json!("haul.toml");
    assert_eq!(places, [(&file, &json!(2)), (&file, &json!(3))]);
    let message = problems[1]["message"].as_str().expect("text");
    assert!(
        message.starts_with("limits.sessions is 0, but "),
        "{message}"
    );
}

#[tokio::test]
async fn the_password_of_a_new_user_may_be_in_a_file() {
    let data_directory = DataDirectory::new();
    std::fs::write(
        data_directory.0.path().join("secret"),
        "hunter2 hunter2\nmore\n",
    )
    .expect("written");
    data_directory.ok("user add alice --password-file secret", "");
    let accounts = data_directory.accounts().await;
    let account = accounts
        .log_in_with_password("alice", "hunter2 hunter2")
        .await
        .expect("logs in");
    assert_eq!(account.name.as_str(), "alice");
    data_directory.ok("user remove alice --yes", "");
}

#[test]
fn completions_exist_for_every_common_shell() {
    let data_directory = DataDirectory::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = data_directory.ok(&format!("completions {shell}"), "");
        assert!(script.contains("check-config"), "{shell}");
    }
}

#[test]
fn a_number_of_files_is_not_a_size_with_a_unit() {
    let data_directory = DataDirectory::new();
    data_directory.ok("user add bob --files none", "hunter2 hunter2\n");
    for files in ["10GiB", "1k", "1.5", "-1"] {
        for line in [
            format!("user set bob --files={files}"),
            format!("user add eve --files={files}"),
            format!("folder add team --files={files}"),
        ] {
            let done = data_directory.run(&line, "hunter2 hunter2\n");
            assert_eq!(done.code, 2, "{line}: {done:?}");
            assert!(
                done.stderr.contains("a whole number of files"),
                "{line}: {done:?}"
            );
        }
    }
    data_directory.ok("user set bob --files=12", "");
}

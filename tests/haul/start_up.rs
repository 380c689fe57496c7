//! A failed start prints one line with the reason and advice, and its exit code tells whether a
//! restart can help. A successful start opens exactly the configured sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::blocking_client::BlockingSession;
use crate::daemon::{ServerProcess, haul, operate};
use crate::harness::PASSWORD;
use crate::requirements;

/// An invalid configuration, which a restart does not fix.
const WRONG: i32 = 2;

/// A failure that a restart may fix.
const NOT_NOW: i32 = 1;

/// The message of a failed start, which is one line.
fn error_line(output: &Output, code: i32) -> String {
    let message = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let line: Value = serde_json::from_str(&message).expect("a line as those of the log");
    assert_eq!(line["event"], "can_not_start");
    line["message"].as_str().expect("text").to_owned()
}

/// Starts haul on `data` below `place`, on free ports unless `arguments` or `settings` set others.
fn start(temp_dir: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = haul();
    command
        .args(["serve", "--data", "data"])
        .args(arguments)
        .env("HAUL_SERVER_LISTEN", "127.0.0.1:0")
        .env("HAUL_OPS_LISTEN", "127.0.0.1:0")
        .envs(settings.iter().copied())
        .current_dir(temp_dir);
    command.output().expect("it runs")
}

#[test]
fn an_invalid_configuration_ends_the_start_with_2_before_anything_is_created() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let write =
        |name: &str, text: &str| fs::write(temp_dir.path().join(name), text).expect("written");
    write("setting.toml", "[limits]\nsesions = 3\n");
    write("value.toml", "[limits]\nsessions = \"many\"\n");
    write("syntax.toml", "[limits\n");
    for (arguments, settings, expected) in [
        (&["--config", "setting.toml"][..], &[][..], "limits.sesions"),
        (&["--config", "value.toml"], &[], "value.toml, line 2"),
        (&["--config", "syntax.toml"], &[], "syntax.toml, line 1"),
        (&["--config", "missing.toml"], &[], "missing.toml"),
        (
            &[],
            &[("HAUL_LIMITS_SESSIONS", "many")],
            "HAUL_LIMITS_SESSIONS",
        ),
        (&[], &[("HAUL_LIMITS_SESIONS", "3")], "HAUL_LIMITS_SESIONS"),
        (&[], &[("HAUL_OPS_LISTEN", "9001")], "HAUL_OPS_LISTEN"),
        (
            &["--listen", "nowhere"],
            &[],
            "`--listen` cannot be \"nowhere\": ",
        ),
        (&["--lisen", "127.0.0.1:0"], &[], "no option `--lisen`; "),
        (&["twice"], &[], "`twice`"),
    ] {
        let output = start(temp_dir.path(), arguments, settings);
        let message = error_line(&output, WRONG);
        assert!(message.contains(expected), "{message}");
        assert!(!temp_dir.path().join("data").exists(), "{message}");
    }
}

#[test]
fn a_port_in_use_ends_the_start_with_1_and_the_line_names_the_setting() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let tcp = tcp.local_addr().map(|address| (address.to_string(), tcp));
    let (tcp, _taken) = tcp.expect("an address");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let udp = udp.local_addr().map(|address| (address.to_string(), udp));
    let (udp, _taken) = udp.expect("an address");
    for (arguments, settings, address, setting) in [
        (
            &["--listen", &*tcp][..],
            &[][..],
            &tcp,
            "--listen or server.listen",
        ),
        (&["--listen", &*udp], &[], &udp, "--listen or server.listen"),
        (&[], &[("HAUL_OPS_LISTEN", &*tcp)], &tcp, "ops.listen"),
    ] {
        let output = start(temp_dir.path(), arguments, settings);
        let message = error_line(&output, NOT_NOW);
        assert!(
            message.contains(&format!("cannot listen on {address}")),
            "{message}"
        );
        assert!(message.contains(setting), "{message}");
        assert!(!temp_dir.path().join("data").exists(), "{message}");
    }
}

#[test]
fn an_unusable_certificate_is_named() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    fs::write(temp_dir.path().join("no.pem"), "nothing of the kind").expect("written");
    for (settings, code, expected) in [
        (
            &[
                ("HAUL_TLS_CERTIFICATE", "missing.pem"),
                ("HAUL_TLS_KEY", "no.pem"),
            ][..],
            NOT_NOW,
            "cannot read missing.pem: ",
        ),
        (
            &[
                ("HAUL_TLS_CERTIFICATE", "no.pem"),
                ("HAUL_TLS_KEY", "no.pem"),
            ],
            NOT_NOW,
            "no.pem: ",
        ),
        (
            &[("HAUL_TLS_CERTIFICATE", "no.pem")],
            WRONG,
            "tls.certificate is set, but tls.key is not; set both or neither",
        ),
    ] {
        let message = error_line(&start(temp_dir.path(), &[], settings), code);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_data_directory_of_another_user_is_refused_and_both_users_are_named() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    open(temp_dir.path(), 0o755).expect("set");
    let data = temp_dir.path().join("data");
    fs::create_dir(&data).expect("made");
    // In a place where other users can run it.
    let program = temp_dir.path().join("haul");
    let built = env!("CARGO_BIN_EXE_haul");
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).expect("copied");
    }
    let mut command = Command::new(&program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(&data);
    command.env("HAUL_OPS_LISTEN", "").current_dir("/");
    let is_root = rustix::process::geteuid().is_root();
    let expected = if is_root {
        command.uid(65534).gid(65534);
        open(&data, 0o755).expect("set");
        "belongs to user 0 and haul runs as user 65534, who may not write there; give it to that \
         user with chown, or run haul as its owner"
    } else {
        open(&data, 0o500).expect("set");
        "may not write there; allow it with chmod"
    };
    let message = error_line(&command.output().expect("it runs"), NOT_NOW);
    assert!(message.contains(expected), "{message}");
}

/// Starts haul on a separate file system, mounted with these options.
fn start_on(options: &str, test: &str) -> Option<Output> {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let probe = ["mount", "-t", "tmpfs", "haul", "/tmp"];
    if !requirements::namespaces(&["-Urm"], &probe, test) {
        return None;
    }
    let script = "mount -t tmpfs -o \"$1\" haul \"$2\" || exit 77; shift; \
                  exec \"$2\" serve --listen 127.0.0.1:0 --data \"$1\"";
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh", options])
        .arg(temp_dir.path())
        .arg(haul().get_program())
        .env("HAUL_OPS_LISTEN", "")
        .output();
    Some(output.expect("it runs"))
}

#[test]
fn a_read_only_or_full_disk_is_reported_with_advice() {
    let test = "a_read_only_or_full_disk_is_reported_with_advice";
    for (options, expected) in [
        ("ro", "the file system is read-only; mount it for writing"),
        (
            "nr_inodes=2",
            "the disk has no free space or no free inodes; free some",
        ),
        ("size=16k", "the disk is full; free some space"),
    ] {
        let Some(output) = start_on(options, test) else {
            return;
        };
        let message = error_line(&output, NOT_NOW);
        assert!(message.contains(expected), "{options}: {message}");
    }
}

#[tokio::test]
async fn a_database_of_a_later_version_is_not_changed() {
    for name in ["haul.db", "messages.db"] {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let data = temp_dir.path().join("data");
        ServerProcess::start_on(&data).terminate();
        set_later_version(&data.join(name)).await;
        let before = fs::read(data.join(name)).expect("there");
        let message = error_line(&start(temp_dir.path(), &[], &[]), NOT_NOW);
        assert!(message.contains(name), "{message}");
        assert!(
            message.contains("written by a later version of haul"),
            "{message}"
        );
        assert_eq!(fs::read(data.join(name)).expect("there"), before);
    }
}

/// All files below a directory, with the digest of their content and their modification time,
/// except the index of a write-ahead log, in which `SQLite` stores its locks.
fn all_files(directory: &Path) -> BTreeMap<PathBuf, (String, SystemTime)> {
    let entries = walkdir::WalkDir::new(directory).into_iter();
    let files = entries.map(|entry| entry.expect("readable"));
    files
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| !entry.path().to_string_lossy().ends_with("-shm"))
        .map(|entry| {
            let meta = entry.metadata().expect("there");
            let content = fs::read(entry.path()).expect("readable");
            let digest = blake3::hash(&content).to_hex().to_string();
            let state = (digest, meta.modified().expect("known"));
            (entry.path().to_owned(), state)
        })
        .collect()
}

/// Creates a partial upload in `data`, and a file in staging that a start would delete.
fn with_a_kept_upload(data: &Path) {
    operate(data, "user add alice", &format!("{PASSWORD}\n"));
    let token = operate(data, "token add alice", "");
    let daemon = ServerProcess::start_on(data);
    let mut client = BlockingSession::log_in(&daemon.address, &token).expect("a session");
    client
        .send(&json!({"id": 900, "cmd": "put", "path": "half", "size": 300_000}))
        .expect("alive");
    client.send_data(900, &vec![7; 200_000]).expect("alive");
    client.ok(&json!({"cmd": "ping"}));
    drop(client);
    assert_eq!(daemon.terminate().code, Some(0));
    let staged = fs::read_dir(data.join("staging")).expect("there").count();
    assert_eq!(staged, 2, "the upload and its record");
    fs::write(data.join("staging/of-a-later-version"), "kept").expect("written");
}

async fn set_later_version(database: &Path) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut database = options.connect().await.expect("there");
    let later = "INSERT INTO _sqlx_migrations \
                 VALUES (9999, 'later', CURRENT_TIMESTAMP, TRUE, x'00', 0)";
    let written = sqlx::query(later).execute(&mut database).await;
    written.expect("written");
    sqlx::Connection::close(database).await.expect("closed");
}

#[tokio::test]
async fn a_refused_start_changes_nothing() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    with_a_kept_upload(&data);
    fs::write(temp_dir.path().join("no.pem"), "nothing of the kind").expect("written");
    let before = all_files(&data);
    let tls = [
        ("HAUL_TLS_CERTIFICATE", "no.pem"),
        ("HAUL_TLS_KEY", "no.pem"),
    ];
    let message = error_line(&start(temp_dir.path(), &[], &tls), NOT_NOW);
    assert!(message.contains("no.pem"), "{message}");
    assert_eq!(all_files(&data), before);

    let unfinished = data.join("haul.db.unfinished");
    fs::write(&unfinished, "").expect("written");
    let before = all_files(&data);
    let message = error_line(&start(temp_dir.path(), &[], &[]), NOT_NOW);
    assert!(message.contains("an incomplete backup"), "{message}");
    refuse_to_add_a_user(&data, "an incomplete backup");
    assert_eq!(all_files(&data), before);
    fs::remove_file(&unfinished).expect("removed");

    for name in ["messages.db", "haul.db"] {
        set_later_version(&data.join(name)).await;
        let before = all_files(&data);
        let message = error_line(&start(temp_dir.path(), &[], &[]), NOT_NOW);
        assert!(message.contains("a later version of haul"), "{message}");
        assert_eq!(all_files(&data), before, "{name}");
    }
    let before = all_files(&data);
    refuse_to_add_a_user(&data, "a later version of haul");
    assert_eq!(all_files(&data), before);
}

/// Asserts that the commands on the machine refuse to change these accounts, too.
fn refuse_to_add_a_user(data: &Path, expected: &str) {
    let password = data.with_file_name("password");
    fs::write(&password, PASSWORD).expect("written");
    let mut command = haul();
    command.args(["user", "add", "bob", "--data"]).arg(data);
    command.stdin(fs::File::open(&password).expect("there"));
    let output = command.output().expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn a_start_while_another_server_runs_changes_nothing() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let data = temp_dir.path().join("data");
    with_a_kept_upload(&data);
    let staging = data.join("staging");
    let _lock = {
        let staging = fs::File::open(&staging).expect("there");
        staging.lock().expect("locked");
        staging
    };
    let before = all_files(&data);
    let message = error_line(&start(temp_dir.path(), &[], &[]), NOT_NOW);
    assert!(message.contains("another server is using"), "{message}");
    assert_eq!(all_files(&data), before);
}

#[test]
fn a_refused_start_removes_no_log_file() {
    let temp_dir = tempfile::tempdir().expect("a directory");
    let logs = temp_dir.path().join("logs");
    fs::create_dir(&logs).expect("made");
    for day in 1..9 {
        fs::write(logs.join(format!("haul.log.2001-01-0{day}")), "old").expect("written");
    }
    let settings = [
        ("HAUL_LOG_FILE", "logs/haul.log"),
        ("HAUL_LOG_KEEP_FILES", "2"),
        ("HAUL_SERVER_REQUIRE_MOUNT", "true"),
    ];
    error_line(&start(temp_dir.path(), &[], &settings), NOT_NOW);
    let old = fs::read_dir(&logs).expect("there");
    let old = old.filter(|entry| {
        let name = entry.as_ref().expect("readable").file_name();
        name.to_string_lossy().contains(".2001-")
    });
    assert_eq!(old.count(), 8);
}

/// The sockets on which a process accepts connections and datagrams.
fn open_to(process: i32) -> BTreeSet<(&'static str, SocketAddr)> {
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let links = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let own: BTreeSet<_> = links.map(|link| link.display().to_string()).collect();
    let mut found = BTreeSet::new();
    // A listening TCP socket, and an unconnected UDP socket: proc(5).
    for (table, kind, state) in [
        ("tcp", "tcp", "0A"),
        ("tcp6", "tcp", "0A"),
        ("udp", "udp", "07"),
        ("udp6", "udp", "07"),
    ] {
        let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for row in text.lines().skip(1) {
            let columns: Vec<_> = row.split_whitespace().collect();
            if columns[3] == state && own.contains(&format!("socket:[{}]", columns[9])) {
                found.insert((kind, address(columns[1])));
            }
        }
    }
    found
}

/// Parses `0100007F:2328`: words of 32 bits in native byte order.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').expect("a port");
    let port = u16::from_str_radix(port, 16).expect("a number");
    let word = |at: usize| u32::from_str_radix(&ip[at..at + 8], 16).expect("a number");
    if ip.len() == 8 {
        return (Ipv4Addr::from(word(0).to_ne_bytes()), port).into();
    }
    let words = [0, 8, 16, 24].map(|at| word(at).to_ne_bytes());
    let bytes: [u8; 16] = words.concat().try_into().expect("16 bytes");
    (Ipv6Addr::from(bytes), port).into()
}

#[test]
fn the_server_listens_on_the_configured_addresses_only() {
    let daemon = ServerProcess::start();
    let id = daemon.id().as_raw_nonzero().get();
    let [at, ops] = [&daemon.address, &daemon.ops].map(|text| text.parse().expect("an address"));
    let expected: BTreeSet<(_, SocketAddr)> = [("tcp", at), ("udp", at), ("tcp", ops)].into();
    assert_eq!(open_to(id), expected);
    daemon.terminate();

    let less = [("HAUL_OPS_LISTEN", ""), ("HAUL_SERVER_DATAGRAMS", "false")];
    let daemon = ServerProcess::start_with(&less);
    let at = daemon.address.parse().expect("an address");
    let id = daemon.id().as_raw_nonzero().get();
    assert_eq!(open_to(id), [("tcp", at)].into());
}

#[test]
fn the_operators_address_is_local_unless_the_settings_change_it() {
    let ops = haul::config::Config::default()
        .ops
        .listen
        .expect("somewhere");
    assert!(ops.ip().is_loopback(), "{ops}");
}

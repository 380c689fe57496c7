//! The metrics for Prometheus: `/metrics`, the alert rules, and their documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use haul::ops;
use haul::storage::SpaceLimits;
use haul::telemetry::LostLines;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{PASSWORD, TestServer, control, data};
use crate::requirements;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");
const RULES: &str = include_str!("../../docs/haul.rules.yml");

/// The lost log lines that these tests report.
pub(crate) const LOST: LostLines = LostLines { lines: 7, audit: 2 };

/// A server with an operators' address.
struct Watched {
    server: TestServer,
    ops: SocketAddr,
    _stop: DropGuard,
}

impl Watched {
    async fn start() -> Self {
        let server = TestServer::start_with(|config| {
            config.auth.attempts = 1_000_000;
            config.auth.attempts_per_connection = 1_000_000;
            config.limits.frames_before_login = 1_000_000;
        });
        let server = server.await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let ops = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let made = std::future::ready(server.server.clone());
        tokio::spawn(ops::run(
            listener,
            server.address,
            made,
            || LOST,
            stop.clone(),
        ));
        Self {
            server,
            ops,
            _stop: stop.drop_guard(),
        }
    }

    /// All metrics, with the head of the response.
    async fn collect(&self) -> (String, String) {
        answer(self.ops, "/metrics").await
    }

    /// The value of each series.
    async fn series(&self) -> BTreeMap<String, String> {
        series(&self.collect().await.1)
    }
}

/// The head and the body of the response for `path`.
pub(crate) async fn answer(ops: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(ops).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

fn series(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        (name.to_owned(), value.to_owned())
    });
    series.collect()
}

/// The names of all metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds.filter_map(|line| line.split(' ').next()).collect()
}

/// Performs one operation of every kind.
async fn use_all(watched: &Watched) {
    let limits = SpaceLimits {
        bytes: Some(1 << 20),
        files: None,
    };
    watched.server.add_user("carol", limits).await;
    let mut carol = watched.server.log_in("carol").await;
    carol.put("top-secret.txt", &[b'x'; 1000]).await;
    carol
        .get(json!({"cmd": "get", "path": "top-secret.txt"}))
        .await;
    carol
        .fails(json!({"cmd": "stat", "path": "nowhere"}), "not_found")
        .await;
    carol
        .ok(json!({"cmd": "say", "to": "bob", "text": "psst-hello"}))
        .await;
    let mut stranger = watched.server.connect().await;
    let login = json!({"cmd": "login", "user": "carol", "password": "guessed"});
    stranger.fails(login, "login_failed").await;
    let login = json!({"cmd": "login", "token": "guessed"});
    stranger.fails(login, "login_failed").await;
}

#[tokio::test]
async fn requests_of_clients_are_counted() {
    let watched = Watched::start().await;
    let before = watched.series().await;
    assert_eq!(
        before["haul_logins_total{method=\"password\",code=\"ok\"}"],
        "0"
    );
    use_all(&watched).await;
    let (head, text) = watched.collect().await;
    assert!(
        head.to_lowercase()
            .contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let after = series(&text);
    for (name, value) in [
        ("haul_logins_total{method=\"password\",code=\"ok\"}", "1"),
        (
            "haul_logins_total{method=\"password\",code=\"login_failed\"}",
            "1",
        ),
        (
            "haul_logins_total{method=\"token\",code=\"login_failed\"}",
            "1",
        ),
        (
            "haul_commands_total{cmd=\"login\",code=\"login_failed\"}",
            "2",
        ),
        ("haul_commands_total{cmd=\"put\",code=\"ok\"}", "1"),
        ("haul_commands_total{cmd=\"stat\",code=\"not_found\"}", "1"),
        ("haul_commands_total{cmd=\"stat\",code=\"internal\"}", "0"),
        ("haul_command_duration_seconds_count{cmd=\"get\"}", "1"),
        (
            "haul_command_duration_seconds_bucket{cmd=\"login\",le=\"+Inf\"}",
            "3",
        ),
        ("haul_file_bytes_total{direction=\"received\"}", "1000"),
        ("haul_file_bytes_total{direction=\"sent\"}", "1000"),
        ("haul_messages_total", "1"),
        ("haul_messages_delivered_total", "0"),
        (
            "haul_quota_used_bytes{kind=\"home\",name=\"carol\"}",
            "1000",
        ),
        (
            "haul_quota_limit_bytes{kind=\"home\",name=\"carol\"}",
            "1048576",
        ),
        ("haul_connections_total", "2"),
        ("haul_log_lines_lost_total", "7"),
        ("haul_audit_lines_lost_total", "2"),
        ("haul_log_lines_left_out_total", "0"),
        ("haul_draining", "0"),
        ("haul_degraded", "0"),
        ("haul_disk_answers", "1"),
    ] {
        assert_eq!(
            after.get(name).map(String::as_str),
            Some(value),
            "{name} in {text}"
        );
    }
    let number = |name: &str| after[name].parse::<f64>().expect("a number");
    let free = number("haul_disk_free_bytes");
    assert!(
        free > 0.0 && free <= number("haul_disk_size_bytes"),
        "{text}"
    );
    assert!(number("process_resident_memory_bytes") > 1e6, "{text}");
    let expires = number("haul_certificate_expiry_timestamp_seconds");
    assert!(expires > number("process_start_time_seconds"), "{text}");
    for secret in [PASSWORD, "guessed", "top-secret", "psst-hello"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn gauges_show_sessions_and_transfers_while_they_last() {
    let watched = Watched::start().await;
    let mut alice = watched.server.log_in("alice").await;
    let put = json!({"id": 7, "cmd": "put", "path": "a.bin", "size": 500_000});
    let mut burst = control(&put);
    burst.extend(data(7, &vec![7; 200_000]));
    alice.send_bytes(&burst).await;
    assert!(alice.reply().await["begin"].is_object());
    let running = watched.series().await;
    let plain = "haul_sessions{dialect=\"framed\",tls=\"no\"}";
    assert_eq!(running[plain], "1");
    assert_eq!(running["haul_transfers{cmd=\"put\"}"], "1");
    assert_eq!(running["haul_transfers{cmd=\"get\"}"], "0");
    assert_eq!(running["haul_connections"], "1");
    drop(alice);
    let over = crate::harness::soon("the upload is kept", async || {
        let now = watched.series().await;
        let over = now["haul_kept_uploads"] == "1" && now["haul_connections"] == "0";
        over.then_some(now)
    });
    let over = over.await;
    assert_eq!(
        (&*over[plain], &*over["haul_transfers{cmd=\"put\"}"]),
        ("0", "0")
    );
    assert_eq!(over["haul_kept_upload_bytes"], "200000");
}

#[tokio::test]
async fn unknown_commands_and_names_create_no_series() {
    let watched = Watched::start().await;
    let mut stranger = watched.server.connect().await;
    let mut made_up = async |number: u32| {
        let name = format!("made-up-{number}");
        let login = json!({"cmd": "login", "user": name, "password": name});
        stranger.fails(login, "login_failed").await;
        stranger.fails(json!({"cmd": name}), "bad_request").await;
        stranger
            .fails(json!({"cmd": "stat", "path": name}), "not_logged_in")
            .await;
    };
    made_up(0).await;
    let before = watched.series().await;
    for number in 1..=1000 {
        made_up(number).await;
    }
    let after = watched.series().await;
    assert!(after.keys().eq(before.keys()));
    let failed = "haul_logins_total{method=\"password\",code=\"login_failed\"}";
    assert_eq!(after[failed], "1001");
    assert_eq!(
        after["haul_commands_total{cmd=\"unknown\",code=\"bad_request\"}"],
        "1001"
    );
}

#[tokio::test]
async fn the_document_lists_every_metric_and_no_other() {
    let watched = Watched::start().await;
    use_all(&watched).await;
    let (_, text) = watched.collect().await;
    let (_, rest) = DOCUMENT.split_once("\n### Metrics\n").expect("a section");
    let section = rest.split("\n### ").next().expect("a text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = rows
        .filter_map(|row| row.split(['`', '{']).next())
        .collect();
    assert_eq!(documented, names(&text));
    let alerts = RULES.lines().filter(|line| line.contains("expr:"));
    for alert in alerts {
        let words = alert.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: Vec<_> = words.filter(|word| word.starts_with("haul_")).collect();
        // The metric of Prometheus itself for a target that does not answer.
        let is_up = alert.contains("up{job=\"haul\"}");
        assert!(is_up || !used.is_empty(), "{alert}");
        for metric in used {
            let metric = metric.trim_end_matches("_bucket");
            assert!(documented.contains(metric), "{metric}");
        }
    }
}

/// Checks `input` with `promtool`.
fn promtool(words: &[&str], input: &str) {
    let mut tool = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was there a moment ago");
    let mut stdin = tool.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = tool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}\n{input}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn promtool_accepts_the_metrics_and_the_rules() {
    let test = "metrics::promtool_accepts_the_metrics_and_the_rules";
    if !requirements::program("promtool", "--version", test) {
        return;
    }
    let watched = Watched::start().await;
    use_all(&watched).await;
    promtool(&["check", "metrics"], &watched.collect().await.1);
    let root = env!("CARGO_MANIFEST_DIR");
    promtool(
        &["check", "rules", &format!("{root}/docs/haul.rules.yml")],
        "",
    );
    let (_, rest) = DOCUMENT.split_once("```yaml\n").expect("an example");
    let example = rest.split("```").next().expect("an end");
    let temp_dir = tempfile::tempdir().expect("a directory");
    let config = temp_dir.path().join("prometheus.yml");
    std::fs::write(&config, example).expect("written");
    std::fs::write(temp_dir.path().join("haul.rules.yml"), RULES).expect("written");
    promtool(&["check", "config", config.to_str().expect("text")], "");
}

//! `/metrics`: the figures of the server in the text format of Prometheus.
//!
//! A collection reads counters that exist anyway; only the disk and the process are probed, at most every
//! few seconds. Labels have few values, and clients cannot add any: names of commands, error codes, and a
//! bounded number of homes and folders with a limit.

mod families;
mod process;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use tracing::error;

use crate::ops::host;
use crate::ops::metrics::families::MetricFamilies;
use crate::ops::metrics::process::ProcessFigures;
use crate::ops::probe::Probe;
use crate::protocol::{ErrorCode, SessionDialect};
use crate::server::{CommandCounts, Server, ServerFigures, ServerStage};
use crate::telemetry::LostLines;

/// Returns the number of lost log lines.
pub(super) type LostLinesFn = Arc<dyn Fn() -> LostLines + Send + Sync>;

/// The sources of the figures.
#[derive(Clone)]
struct MetricSources {
    server: Server,
    lost_lines: LostLinesFn,
    /// The free and total bytes of the disk.
    disk: Probe<Option<(u64, u64)>>,
    process: Probe<ProcessFigures>,
}

/// `/metrics` of a server.
pub(super) fn routes(server: &Server, lost_lines: LostLinesFn) -> Router {
    let store = server.store().clone();
    let sources = MetricSources {
        server: server.clone(),
        lost_lines,
        disk: Probe::new(move || store.disk_space().ok()),
        process: Probe::new(ProcessFigures::read),
    };
    Router::new()
        .route("/metrics", get(serve_metrics))
        .layer(from_fn(host::guard_from_browsers))
        .with_state(sources)
}

async fn serve_metrics(State(sources): State<MetricSources>) -> Response {
    match sources.collect().await.encode() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            error!(name: "metrics_failed", %error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl MetricSources {
    async fn collect(&self) -> MetricFamilies {
        let (disk, process) = tokio::join!(self.disk.result(), self.process.result());
        let figures = self.server.figures();
        let mut families = MetricFamilies::default();
        state(&figures, &mut families);
        connections(&figures, &mut families);
        commands(&figures.commands, &mut families);
        files(&figures, &mut families);
        queues(&figures, &mut families);
        messages(&figures, &mut families);
        let lost = (self.lost_lines)();
        let help =
            "Log lines that were lost, because the output was too slow or the disk was full.";
        families.counter("haul_log_lines_lost_total", help, size(lost.lines));
        families.counter(
            "haul_audit_lines_lost_total",
            "Audit lines that could not be written to the output that keeps the audit.",
            size(lost.audit),
        );
        families.counter(
            "haul_log_lines_left_out_total",
            "Requests without a log line of their own, because there were too many.",
            float(figures.log_lines_left_out),
        );
        space(disk.known().flatten(), &mut families);
        if let Some(process) = process.known() {
            machine(&process, &mut families);
        }
        families
    }
}

fn state(figures: &ServerFigures, families: &mut MetricFamilies) {
    let version = env!("CARGO_PKG_VERSION");
    families.gauges(
        "haul_build_info",
        "1, with the version of the server.",
        [([("version", version)], 1.0)],
    );
    families.gauge(
        "process_start_time_seconds",
        "When the server started, as Unix time.",
        unix_seconds(figures.started),
    );
    families.gauge(
        "haul_draining",
        "1 while the server drains before it stops.",
        flag(figures.stage == ServerStage::Draining),
    );
    families.gauge(
        "haul_degraded",
        "1 if the disk has failed to store something since the start.",
        flag(figures.is_degraded),
    );
    let expires = figures.certificate_expires.map(unix_seconds);
    families.gauges(
        "haul_certificate_expiry_timestamp_seconds",
        "When the certificate of new connections expires, as Unix time.",
        expires.map(|expires| ([], expires)),
    );
}

fn connections(figures: &ServerFigures, families: &mut MetricFamilies) {
    let sessions = figures.sessions.iter().map(|(dialect, secure, count)| {
        let dialect = match dialect {
            SessionDialect::Classic => "classic",
            _ => "framed",
        };
        let tls = if *secure { "yes" } else { "no" };
        ([("dialect", dialect), ("tls", tls)], size(*count))
    });
    families.gauges(
        "haul_sessions",
        "Sessions of users who have logged in.",
        sessions,
    );
    families.gauge(
        "haul_connections",
        "Open connections, with or without a login.",
        size(figures.connections),
    );
    families.gauge(
        "haul_connections_without_login",
        "Open connections without a login.",
        size(figures.unauthenticated),
    );
    families.counter(
        "haul_connections_total",
        "Connections that were accepted.",
        float(figures.all_connections),
    );
    let turned_away = figures.refused_connections.iter();
    families.counters(
        "haul_connections_turned_away_total",
        "Connections that were closed before their session, by reason.",
        turned_away.map(|(reason, count)| ([("reason", *reason)], float(*count))),
    );
    // Series with an alert exist from the start, because a rate needs a first value.
    let shown = |code: &Option<ErrorCode>, count: u64| {
        count > 0 || matches!(code, None | Some(ErrorCode::LoginFailed))
    };
    let logins = figures.logins.iter();
    let logins = logins.filter(|(_, code, count)| shown(code, *count));
    families.counters(
        "haul_logins_total",
        "Login attempts, by method and the code of the reply.",
        logins.map(|(how, code, count)| {
            (
                [("method", how.as_str()), ("code", name(*code))],
                float(*count),
            )
        }),
    );
}

fn commands(commands: &[CommandCounts], families: &mut MetricFamilies) {
    let used = |command: &&CommandCounts| command.latency.counts.iter().any(|count| *count > 0);
    let counts = commands.iter().flat_map(|command| {
        let errors = command.errors.iter();
        let errors = errors.filter(|(code, count)| *count > 0 || *code == ErrorCode::Internal);
        let errors = errors.map(|(code, count)| (command.cmd, code.as_str(), *count));
        std::iter::once((command.cmd, name(None), command.ok)).chain(errors)
    });
    families.counters(
        "haul_commands_total",
        "Commands, by the code of the reply.",
        counts.map(|(cmd, code, count)| ([("cmd", cmd), ("code", code)], float(count))),
    );
    families.latencies(
        "haul_command_duration_seconds",
        "The time from the read of a command to its reply; of get and put, the time of the transfer.",
        commands.iter().filter(used),
    );
}

fn files(figures: &ServerFigures, families: &mut MetricFamilies) {
    let bytes = [
        ([("direction", "received")], float(figures.received_bytes)),
        ([("direction", "sent")], float(figures.sent_bytes)),
    ];
    families.counters(
        "haul_file_bytes_total",
        "File bytes, received from clients and sent to them.",
        bytes,
    );
    families.gauges(
        "haul_transfers",
        "Running gets and puts.",
        [
            ([("cmd", "get")], size(figures.gets)),
            ([("cmd", "put")], size(figures.puts)),
        ],
    );
    families.gauge(
        "haul_kept_uploads",
        "Partial uploads, which can be resumed.",
        size(figures.kept_uploads),
    );
    families.gauge(
        "haul_kept_upload_bytes",
        "The bytes of partial uploads.",
        float(figures.kept_bytes),
    );
    let spaces = || {
        figures.spaces.iter().map(|space| {
            let kind = if space.is_folder { "folder" } else { "home" };
            ([("kind", kind), ("name", &*space.name)], space)
        })
    };
    families.gauges(
        "haul_quota_used_bytes",
        "Used bytes of homes and folders with a limit, of the 100 fullest.",
        spaces().map(|(labels, space)| (labels, float(space.used))),
    );
    families.gauges(
        "haul_quota_limit_bytes",
        "The limits of these homes and folders.",
        spaces().map(|(labels, space)| (labels, float(space.limit))),
    );
}

fn queues(figures: &ServerFigures, families: &mut MetricFamilies) {
    let queues = &figures.queues;
    let depths = [
        ("logins", queues.logins),
        ("disk", queues.disk_waiting),
        ("messages", queues.messages),
        ("datagrams", queues.datagrams),
    ];
    families.gauges(
        "haul_queue_depth",
        "Queue lengths: logins that wait for their password to be hashed, work that waits for a disk \
         thread, messages that are not stored yet, requests in datagrams without a reply.",
        depths.map(|(queue, depth)| ([("queue", queue)], size(depth))),
    );
    families.gauge(
        "haul_disk_threads",
        "Threads for disk operations.",
        size(queues.disk_threads),
    );
    families.gauge(
        "haul_disk_threads_busy",
        "Disk threads that are in use.",
        size(queues.disk_running),
    );
    let (granted, descriptors) = queues.descriptors;
    families.gauge(
        "haul_file_descriptors",
        "File descriptors for files of users.",
        size(descriptors),
    );
    families.gauge(
        "haul_file_descriptors_granted",
        "File descriptors for files of users that are in use.",
        size(granted),
    );
    families.gauge(
        "haul_digest_turns_free",
        "Permits for reading a file only to hash it that are not in use.",
        size(queues.hashing_free),
    );
}

fn messages(figures: &ServerFigures, families: &mut MetricFamilies) {
    families.counter(
        "haul_messages_total",
        "Messages that were stored.",
        float(figures.stored_messages),
    );
    families.counter(
        "haul_messages_delivered_total",
        "Deliveries of messages to sessions that were connected.",
        float(figures.delivered_messages),
    );
    families.counter(
        "haul_datagrams_dropped_total",
        "Datagrams that were dropped: forged, replayed, malformed or without a valid ticket.",
        float(figures.dropped_datagrams),
    );
}

fn space(disk: Option<(u64, u64)>, families: &mut MetricFamilies) {
    families.gauge(
        "haul_disk_answers",
        "0 while the disk of the data directory does not respond; its size is then missing.",
        flag(disk.is_some()),
    );
    let Some((free, all)) = disk else {
        return;
    };
    families.gauge(
        "haul_disk_free_bytes",
        "Free bytes on the disk of the data directory.",
        float(free),
    );
    families.gauge(
        "haul_disk_size_bytes",
        "Total bytes of this disk.",
        float(all),
    );
}

fn machine(process: &ProcessFigures, families: &mut MetricFamilies) {
    families.counter(
        "process_cpu_seconds_total",
        "Processor time, of all threads.",
        process.cpu_seconds,
    );
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory in use.",
            process.resident,
        ),
        ("process_threads", "Threads.", process.threads),
        (
            "process_open_fds",
            "Open files and sockets.",
            process.descriptors,
        ),
        (
            "process_max_fds",
            "The limit of open files and sockets.",
            process.max_descriptors,
        ),
    ];
    for (name, help, value) in gauges {
        families.gauges(name, help, value.map(|value| ([], float(value))));
    }
}

fn name(code: Option<ErrorCode>) -> &'static str {
    code.map_or("ok", ErrorCode::as_str)
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.as_duration().as_secs_f64()
}

fn size(count: usize) -> f64 {
    float(count as u64)
}

/// Prometheus has only floating-point numbers: exact up to 2^53, then rounded.
#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn float(number: u64) -> f64 {
    number as f64
}

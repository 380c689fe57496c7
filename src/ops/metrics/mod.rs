//! `/metrics`: what Prometheus collects, in its text format.
//!
//! Each collection takes a look at numbers that are there anyway. Only the disk is asked, apart
//! from the sessions and at most every few seconds. Labels have few values, which no client makes
//! up: names of commands, codes, and those of existing homes and folders with a limit, a bounded
//! number of them.

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

/// Tells how many lines of the log were lost.
pub(super) type LostLinesFn = Arc<dyn Fn() -> LostLines + Send + Sync>;

/// The sources of the figures.
#[derive(Clone)]
struct MetricSources {
    server: Server,
    lost_lines: LostLinesFn,
    /// Bytes of the disk that are free, and all of them.
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
            "Lines of the log that were lost, because nobody took them or the disk was full.";
        families.counter("haul_log_lines_lost_total", help, size(lost.lines));
        families.counter(
            "haul_audit_lines_lost_total",
            "Lines of the audit that the disk refused in the place that keeps the audit.",
            size(lost.audit),
        );
        families.counter(
            "haul_log_lines_left_out_total",
            "Requests that came too fast for a line of each in the log.",
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
        "1, with the version that runs.",
        [([("version", version)], 1.0)],
    );
    families.gauge(
        "process_start_time_seconds",
        "When the server started, as Unix time.",
        unix_seconds(figures.started),
    );
    families.gauge(
        "haul_draining",
        "1 while the server lets its sessions end in order to stop.",
        flag(figures.stage == ServerStage::Draining),
    );
    families.gauge(
        "haul_degraded",
        "1 once the disk has failed to keep something since the start.",
        flag(figures.is_degraded),
    );
    let expires = figures.certificate_expires.map(unix_seconds);
    families.gauges(
        "haul_certificate_expiry_timestamp_seconds",
        "Until when the certificate is valid that new connections see, as Unix time.",
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
        "Connections that are there, with or without a login.",
        size(figures.connections),
    );
    families.gauge(
        "haul_connections_without_login",
        "Connections on which nobody has logged in yet.",
        size(figures.unauthenticated),
    );
    families.counter(
        "haul_connections_total",
        "Connections that were taken.",
        float(figures.all_connections),
    );
    let turned_away = figures.refused_connections.iter();
    families.counters(
        "haul_connections_turned_away_total",
        "Connections that were closed before their session, by why.",
        turned_away.map(|(reason, count)| ([("reason", *reason)], float(*count))),
    );
    // Those that an alert is about are there from the start: a rate needs a first value.
    let shown = |code: &Option<ErrorCode>, count: u64| {
        count > 0 || matches!(code, None | Some(ErrorCode::LoginFailed))
    };
    let logins = figures.logins.iter();
    let logins = logins.filter(|(_, code, count)| shown(code, *count));
    families.counters(
        "haul_logins_total",
        "Logins that were answered, by how somebody wanted to log in and the code of the answer.",
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
        "Commands that were answered, by the code of the answer.",
        counts.map(|(cmd, code, count)| ([("cmd", cmd), ("code", code)], float(count))),
    );
    families.latencies(
        "haul_command_duration_seconds",
        "From when a command was read to when its answer was made; with get and put that is the \
         time of the transfer.",
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
        "Bytes of files that came from clients and went to them.",
        bytes,
    );
    families.gauges(
        "haul_transfers",
        "Gets and puts that are not answered yet.",
        [
            ([("cmd", "get")], size(figures.gets)),
            ([("cmd", "put")], size(figures.puts)),
        ],
    );
    families.gauge(
        "haul_kept_uploads",
        "Uploads that were cut off and can be gone on with.",
        size(figures.kept_uploads),
    );
    families.gauge(
        "haul_kept_upload_bytes",
        "Bytes that are kept of them.",
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
        "Bytes in the homes and folders with a limit that are in use, the 100 fullest.",
        spaces().map(|(labels, space)| (labels, float(space.used))),
    );
    families.gauges(
        "haul_quota_limit_bytes",
        "The limits of these.",
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
        "What waits: logins for their password to be hashed, work for a thread that may wait for \
         the disk, messages to be stored, requests in datagrams to be answered.",
        depths.map(|(queue, depth)| ([("queue", queue)], size(depth))),
    );
    families.gauge(
        "haul_disk_threads",
        "Threads that may wait for the disk.",
        size(queues.disk_threads),
    );
    families.gauge(
        "haul_disk_threads_busy",
        "Those that work for a session now.",
        size(queues.disk_running),
    );
    let (granted, descriptors) = queues.descriptors;
    families.gauge(
        "haul_file_descriptors",
        "Descriptors that work on the files of users may hold.",
        size(descriptors),
    );
    families.gauge(
        "haul_file_descriptors_granted",
        "Those of them that are granted to it now.",
        size(granted),
    );
    families.gauge(
        "haul_digest_turns_free",
        "Files that may be read at once only to be hashed, less those that are.",
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
        "Sessions that were told of a message at once, each counted.",
        float(figures.delivered_messages),
    );
    families.counter(
        "haul_datagrams_dropped_total",
        "Datagrams that were dropped: forged, repeated, without a good ticket or malformed.",
        float(figures.dropped_datagrams),
    );
}

fn space(disk: Option<(u64, u64)>, families: &mut MetricFamilies) {
    families.gauge(
        "haul_disk_answers",
        "0 while the disk of the data directory does not answer; its size is missing then.",
        flag(disk.is_some()),
    );
    let Some((free, all)) = disk else {
        return;
    };
    families.gauge(
        "haul_disk_free_bytes",
        "Bytes of the data directory's disk that are free.",
        float(free),
    );
    families.gauge(
        "haul_disk_size_bytes",
        "Bytes that this disk has.",
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
            "Files and sockets that are open.",
            process.descriptors,
        ),
        (
            "process_max_fds",
            "The most that may be.",
            process.most_descriptors,
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

/// As Prometheus takes numbers: exact up to 2^53, then the nearest.
#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn float(number: u64) -> f64 {
    number as f64
}

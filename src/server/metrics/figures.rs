//! The figures of a server at one moment, without access to a disk or a database.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::protocol::{ErrorCode, SessionDialect};
use crate::server::metrics::ServerStage;
use crate::server::metrics::commands::CommandCounts;
use crate::server::metrics::logins::LoginMethod;
use crate::server::session::dialect::Dialect;
use crate::server::state::ServerState;
use crate::storage::SpaceUse;

/// The most spaces with a limit that the figures include.
const MAX_SPACES: usize = 100;

/// The figures of a server since its start.
#[derive(Debug, Clone)]
pub struct ServerFigures {
    /// When the server was created.
    pub started: Timestamp,
    /// The stage of the server's life.
    pub stage: ServerStage,
    /// Whether a sync to the disk has failed.
    pub is_degraded: bool,
    /// When the certificate for new connections expires, if there is one.
    pub certificate_expires: Option<Timestamp>,
    /// Sessions of logged-in users: the dialect, whether it is encrypted, and their number.
    pub sessions: Vec<(SessionDialect, bool, usize)>,
    /// Open connections.
    pub connections: usize,
    /// Open connections without a login.
    pub unauthenticated: usize,
    /// Connections accepted since the start.
    pub all_connections: u64,
    /// Connections closed before their session since the start, by reason.
    pub refused_connections: Vec<(&'static str, u64)>,
    /// Logins since the start: the method, the error code unless successful, and their number.
    pub logins: Vec<(LoginMethod, Option<ErrorCode>, u64)>,
    /// Commands finished since the start.
    pub commands: Vec<CommandCounts>,
    /// Bytes of files received from clients since the start.
    pub received_bytes: u64,
    /// Bytes of files sent to clients since the start.
    pub sent_bytes: u64,
    /// Unfinished gets.
    pub gets: usize,
    /// Unfinished puts.
    pub puts: usize,
    /// Partial uploads.
    pub kept_uploads: usize,
    /// Bytes of partial uploads.
    pub kept_bytes: u64,
    /// The fullest of the open homes and folders with a limit.
    pub spaces: Vec<SpaceUse>,
    /// The lengths of queues.
    pub queues: QueueFigures,
    /// Messages stored since the start.
    pub stored_messages: u64,
    /// Sessions that a message was delivered to at once, summed over all messages since the start.
    pub delivered_messages: u64,
    /// Datagrams dropped since the start.
    pub dropped_datagrams: u64,
    /// Requests since the start without a log line, because the limit of log lines was reached.
    pub log_lines_left_out: u64,
}

/// The lengths of queues at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFigures {
    /// Logins whose password is being hashed or waits to be hashed.
    pub logins: usize,
    /// Disk threads.
    pub disk_threads: usize,
    /// Disk operations that run on a thread.
    pub disk_running: usize,
    /// Disk operations that wait for a thread.
    pub disk_waiting: usize,
    /// Unused permits to read a file only to hash it.
    pub hashing_free: usize,
    /// File descriptors granted to operations of users, and their limit.
    pub descriptors: (usize, usize),
    /// Messages that wait to be stored.
    pub messages: usize,
    /// Requests in datagrams that are being handled.
    pub datagrams: usize,
}

impl ServerFigures {
    pub(crate) fn collect(shared: &ServerState) -> Self {
        let metrics = &shared.metrics;
        let (connections, visitors, all_connections) = shared.connection_limiter.counts();
        let (kept_uploads, kept_bytes) = shared.store.kept_uploads();
        let certificate = shared.tls.borrow();
        let certificate = certificate.as_ref().map(|tls| tls.certificate.expires);
        let traffic = &shared.traffic;
        Self {
            started: metrics.started,
            stage: metrics.stage(),
            is_degraded: shared.store.is_degraded(),
            certificate_expires: certificate,
            sessions: shared.sessions.kinds().map(with_protocol_dialect).into(),
            connections,
            unauthenticated: visitors,
            all_connections,
            refused_connections: shared.refusal_logs.counts().into(),
            logins: metrics.logins.counts(),
            commands: metrics.commands(),
            received_bytes: traffic.received.load(Ordering::Relaxed),
            sent_bytes: traffic.sent.load(Ordering::Relaxed),
            gets: traffic.gets.load(Ordering::Relaxed),
            puts: traffic.puts.load(Ordering::Relaxed),
            kept_uploads,
            kept_bytes,
            spaces: shared.store.fullest(MAX_SPACES),
            queues: QueueFigures::collect(shared),
            stored_messages: metrics.said.load(Ordering::Relaxed),
            delivered_messages: metrics.delivered.load(Ordering::Relaxed),
            dropped_datagrams: shared.datagrams.dropped(),
            log_lines_left_out: shared.request_lines.left_out(),
        }
    }
}

impl QueueFigures {
    fn collect(shared: &ServerState) -> Self {
        let disk = shared.disks.load();
        Self {
            logins: shared.logins.waiting(),
            disk_threads: disk.threads,
            disk_running: disk.running,
            disk_waiting: disk.waiting,
            hashing_free: disk.digests_free,
            descriptors: disk.descriptors,
            messages: shared.messages.waiting_count(),
            datagrams: shared.datagrams.active_requests(),
        }
    }
}

fn with_protocol_dialect(
    (dialect, secure, count): (Dialect, bool, usize),
) -> (SessionDialect, bool, usize) {
    let dialect = match dialect {
        Dialect::Framed => SessionDialect::Framed,
        Dialect::Classic => SessionDialect::Classic,
    };
    (dialect, secure, count)
}

//! All that a server knows of itself at one moment, without asking a disk or a database.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::protocol::{ErrorCode, SessionDialect};
use crate::server::metrics::ServerStage;
use crate::server::metrics::commands::CommandCounts;
use crate::server::metrics::logins::LoginMethod;
use crate::server::session::dialect::Dialect;
use crate::server::state::ServerState;
use crate::storage::SpaceUse;

/// Spaces with a limit that are told of at most.
const MAX_SPACES: usize = 100;

/// The figures of a server since its start.
#[derive(Debug, Clone)]
pub struct ServerFigures {
    /// When the server was made.
    pub started: Timestamp,
    /// How far it is.
    pub stage: ServerStage,
    /// The disk has failed to keep something.
    pub is_degraded: bool,
    /// Until when the certificate is valid that new connections see, if there is one.
    pub certificate_expires: Option<Timestamp>,
    /// Sessions of users who have logged in: what they speak, whether it is encrypted, how many.
    pub sessions: Vec<(SessionDialect, bool, usize)>,
    /// Connections that are there.
    pub connections: usize,
    /// Those of them on which nobody has logged in yet.
    pub unauthenticated: usize,
    /// Connections that were taken since the start.
    pub all_connections: u64,
    /// Connections that were closed before their session since the start, by why.
    pub refused_connections: Vec<(&'static str, u64)>,
    /// Logins that ended since the start: how they were meant, the code unless they succeeded.
    pub logins: Vec<(LoginMethod, Option<ErrorCode>, u64)>,
    /// Commands that were closed since the start.
    pub commands: Vec<CommandCounts>,
    /// Bytes of files that came from clients since the start.
    pub received_bytes: u64,
    /// Bytes of files that went to clients since the start.
    pub sent_bytes: u64,
    /// Gets that are not answered yet.
    pub gets: usize,
    /// Puts that are not answered yet.
    pub puts: usize,
    /// Partial uploads, which can be resumed.
    pub kept_uploads: usize,
    /// The bytes that came of them.
    pub kept_bytes: u64,
    /// The fullest of the homes and folders with a limit that are in use or were lately.
    pub spaces: Vec<SpaceUse>,
    /// The lengths of queues.
    pub queues: QueueFigures,
    /// Messages that were stored since the start.
    pub stored_messages: u64,
    /// Sessions that were told of a message at once, each counted, since the start.
    pub delivered_messages: u64,
    /// Datagrams that were dropped since the start.
    pub dropped_datagrams: u64,
    /// Requests since the start that have no line in the log, because they came too fast.
    pub log_lines_left_out: u64,
}

/// How much waits or is worked on at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFigures {
    /// Logins whose password is being hashed or waits for that.
    pub logins: usize,
    /// Threads that may wait for the disk.
    pub disk_threads: usize,
    /// Pieces of work for the disk that are on such a thread.
    pub disk_running: usize,
    /// Those that wait for one.
    pub disk_waiting: usize,
    /// Files that may be read at once only to be hashed, less those that are.
    pub hashing_free: usize,
    /// Descriptors for files that are granted to users' work, and those that there are for it.
    pub descriptors: (usize, usize),
    /// Messages that wait to be stored.
    pub messages: usize,
    /// Requests in datagrams that are worked on.
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

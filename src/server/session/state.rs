//! A session: what it has while it lasts, and why it ends.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Outbox, OutboxClosed, ReceiveError, Receiver};
use crate::protocol::{ErrorCode, Event, FrameError, GoodbyeReason, WireError, encode_event};
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::session::registry::{RegisteredSession, Registration};
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::server::transfer::registry::{RunningTransfers, StrayData};

/// What a session has from its first frame to its last.
pub(crate) struct SessionState<R> {
    pub(crate) shared: Arc<ServerState>,
    pub(crate) receiver: Receiver<R>,
    pub(crate) outbox: Outbox,
    pub(crate) dialect: Dialect,
    pub(crate) peer: Peer,
    pub(crate) id: Arc<str>,
    pub(crate) shutdown: Shutdown,
    /// Its place among the connections.
    pub(crate) seat: Box<ConnectionPermit>,
    pub(crate) login_deadline: Instant,
    /// Cancelled once the session has ended.
    pub(crate) gone: CancellationToken,
    /// Cancelled once nothing more may be sent but what was said already.
    pub(crate) cut: CancellationToken,
    /// The requests that run beside the reading of later ones.
    pub(crate) tasks: TaskTracker,
}

impl<R> SessionState<R> {
    /// Shows the session, whose user is `member`, to operators.
    pub(crate) fn register(&self, member: &Member, running: RunningTransfers) -> Registration {
        self.shared.sessions.register(RegisteredSession {
            session: Arc::clone(&self.id),
            user: member.authority.name().into(),
            peer: self.peer.to_string().into(),
            secure: self.peer.is_secured(),
            dialect: self.dialect,
            since: Timestamp::now(),
            running,
            stop: self.shutdown.stop.child_token(),
            kicked: AtomicBool::new(false),
        })
    }

    /// Tells the peer that the server ends the session.
    pub(crate) async fn say_goodbye(&self, reason: GoodbyeReason) -> Result<(), OutboxClosed> {
        let goodbye = Event::Goodbye { reason };
        self.outbox.send(encode_event(&goodbye)).await
    }
}

/// What the client of a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Frames, version 1.
    Framed,
    /// The classic dialect, behind its translator: nothing can be resumed, and events are not for
    /// it. It would throw them away, so it must not count as somebody who receives them.
    Classic,
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("the peer closed the connection")]
    Disconnected,
    #[error("the client quit")]
    Quit,
    #[error("goodbye, {}", reason_text(*.0))]
    Goodbye(GoodbyeReason),
    #[error("{0}")]
    BadFrame(FrameError),
    #[error("{0}")]
    Stray(StrayData),
    #[error("{0}")]
    TimedOut(String),
    #[error("too many are connected, and nobody has logged in on this connection; try again")]
    Evicted,
    #[error("more than {0} frames on a connection on which nobody has logged in")]
    TooManyFrames(usize),
    #[error("{0} logins failed on this connection")]
    TooManyFailures(usize),
    #[error("too many wrong passwords in one session")]
    Guessing,
}

/// How long a peer that is hung up on for a limit should wait before it comes back.
const RETRY_AFTER_MS: u64 = 1000;

/// Why the server says goodbye, for a person.
pub(crate) fn reason_text(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::ShuttingDown => "the server is stopping",
        GoodbyeReason::AccountClosed => "the account is closed",
        GoodbyeReason::Idle => "the session was idle for too long",
        GoodbyeReason::Kicked => "an operator has ended the session",
        GoodbyeReason::Unknown => "for no known reason",
    }
}

impl CloseReason {
    /// What the peer is told before it is hung up on; nothing if it went by itself or knows.
    pub(crate) fn refusal(&self) -> Option<WireError> {
        let code = match self {
            Self::BadFrame(FrameError::Io(_) | FrameError::Truncated)
            | Self::Disconnected
            | Self::Quit
            | Self::Goodbye(_) => return None,
            Self::BadFrame(_) | Self::Stray(_) => ErrorCode::BadFrame,
            Self::TimedOut(_) => ErrorCode::TimedOut,
            Self::Evicted | Self::TooManyFrames(_) => ErrorCode::Limited,
            Self::TooManyFailures(_) | Self::Guessing => ErrorCode::TooManyAttempts,
        };
        let mut refusal = WireError::new(code, self.to_string());
        if matches!(code, ErrorCode::Limited | ErrorCode::TooManyAttempts) {
            refusal.retry_after_ms = Some(RETRY_AFTER_MS);
        }
        Some(refusal)
    }
}

impl From<OutboxClosed> for CloseReason {
    fn from(_: OutboxClosed) -> Self {
        Self::Disconnected
    }
}

impl From<StrayData> for CloseReason {
    fn from(stray: StrayData) -> Self {
        Self::Stray(stray)
    }
}

impl From<ReceiveError> for CloseReason {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Frame(error) => Self::BadFrame(error),
            ReceiveError::TimedOut(_) => Self::TimedOut(error.to_string()),
        }
    }
}

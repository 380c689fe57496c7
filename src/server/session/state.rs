//! The state of a session, before and after its login.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Outbox, OutboxClosed, Receiver};
use crate::protocol::{Event, GoodbyeReason, encode_event};
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::session::dialect::Dialect;
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::session::registry::{RegisteredSession, Registration};
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::server::transfer::running_transfers::RunningTransfers;

/// The state of a session from its first frame to its last.
pub(crate) struct SessionState<R> {
    pub(crate) shared: Arc<ServerState>,
    pub(crate) receiver: Receiver<R>,
    pub(crate) outbox: Outbox,
    pub(crate) dialect: Dialect,
    pub(crate) peer: Peer,
    pub(crate) id: Arc<str>,
    pub(crate) shutdown: Shutdown,
    /// Its permit of the connection limiter.
    pub(crate) connection_permit: Box<ConnectionPermit>,
    pub(crate) login_deadline: Instant,
    /// Cancelled once the session has ended.
    pub(crate) session_ended: CancellationToken,
    /// Cancelled to end the writer: it still writes queued frames for a short time.
    pub(crate) writer_abort: CancellationToken,
    /// The tasks of requests that run concurrently.
    pub(crate) tasks: TaskTracker,
}

impl<R> SessionState<R> {
    /// Adds the session of `member` to the registry that operators see.
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

    /// Sends the event that the server ends the session.
    pub(crate) async fn say_goodbye(&self, reason: GoodbyeReason) -> Result<(), OutboxClosed> {
        let goodbye = Event::Goodbye { reason };
        self.outbox.send(encode_event(&goodbye)).await
    }
}

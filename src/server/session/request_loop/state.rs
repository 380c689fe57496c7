//! The state of a session's request loop.

use std::future::Future;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::Instrument;

use crate::connection::ReceiveError;
use crate::messages::Subscription;
use crate::protocol::Frame;
use crate::server::authority::AuthorityState;
use crate::server::session::dialect::Dialect;
use crate::server::session::idle::Idle;
use crate::server::session::member::Member;
use crate::server::session::registry::Registration;
use crate::server::session::request_loop::small_uploads::SmallUploads;
use crate::server::session::responder::Responder;
use crate::server::session::state::SessionState;
use crate::server::session::unauthenticated::Admitted;
use crate::server::transfer::download::DownloadQueue;
use crate::server::transfer::session_transfers::SessionTransfers;

/// The loop of a session whose user is known.
pub(crate) struct RequestLoop<'a, R> {
    pub(super) session: &'a mut SessionState<R>,
    pub(super) member: Member,
    /// Operators see it as long as it lasts.
    pub(super) present: Registration,
    pub(super) transfers: SessionTransfers,
    /// Created with the first small upload.
    pub(super) uploads: Option<Box<SmallUploads>>,
    /// Created with the first download.
    pub(super) downloads: Option<Arc<DownloadQueue>>,
    pub(super) batches: Batches,
    /// Bounds the requests that are begun and not answered.
    pub(super) unfinished: Arc<Semaphore>,
    /// Bounds the gets that send at once.
    pub(super) sending: Arc<Semaphore>,
    /// Changes of what its user may do.
    pub(super) changes: watch::Receiver<AuthorityState>,
    pub(super) phase: SessionPhase,
    pub(super) idle: Idle,
    /// Its user is connected as long as it lasts.
    pub(super) attendance: Arc<Subscription>,
}

/// Whether the session begins new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionPhase {
    /// It begins every request.
    Serving,
    /// The server drains: requests that run may end, new ones are refused.
    Draining,
}

/// Whether a queue has items that the session has not offered to a worker since it added them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum BatchState {
    /// A worker has every item, or will take it.
    #[default]
    Claimed,
    /// The next pause of the client, or a request of another kind, starts a worker.
    Unclaimed,
}

/// The states of the session's two queues.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    pub(crate) uploads: BatchState,
    pub(crate) downloads: BatchState,
}

/// The next thing that the session reacts to.
pub(super) enum LoopEvent {
    Frame(Result<Option<Frame>, ReceiveError>),
    /// Nothing has come of another frame.
    Pause,
    Drain,
    Drained,
    Idle,
    Stop,
    /// The user may not be here any more.
    Closed,
    Disconnected,
}

impl<'a, R: AsyncRead + Unpin + Send> RequestLoop<'a, R> {
    pub(crate) fn new(session: &'a mut SessionState<R>, admitted: Admitted) -> Self {
        let Admitted {
            member,
            since,
            inbox,
        } = admitted;
        let framed = session.dialect == Dialect::Framed;
        let lane = framed.then(|| session.outbox.events().clone());
        let messages = &session.shared.messages;
        let attendance = messages.subscribe(&member.party(), lane, inbox, since);
        let attendance = Arc::new(attendance);
        member.authority.add_subscription(&attendance);
        let config = session.shared.config();
        let limits = &config.limits;
        let unfinished = Arc::new(Semaphore::new(limits.requests));
        let transfers = SessionTransfers::new(unfinished.clone());
        let present = session.register(&member, transfers.running().clone());
        Self {
            present,
            transfers,
            uploads: None,
            downloads: None,
            batches: Batches::default(),
            unfinished,
            sending: Arc::new(Semaphore::new(limits.transfers)),
            changes: member.authority.changes(),
            phase: SessionPhase::Serving,
            attendance,
            idle: Idle::new(limits.idle_timeout),
            session,
            member,
        }
    }

    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.unfinished.clone().acquire_owned().await.ok()
    }

    /// Completes the requests of this session's tasks.
    pub(super) fn responder(&self) -> Responder {
        Responder {
            outbox: self.session.outbox.clone(),
            session_ended: self.session.session_ended.clone(),
        }
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let life = self.idle.life();
        let work = async move {
            work.await;
            life.touch();
        };
        self.session.tasks.spawn(work.in_current_span());
    }
}

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
use crate::server::session::idle::IdleTimer;
use crate::server::session::member::Member;
use crate::server::session::registry::Registration;
use crate::server::session::request_loop::small_uploads::SmallUploads;
use crate::server::session::responder::Responder;
use crate::server::session::state::SessionState;
use crate::server::session::unauthenticated::Admitted;
use crate::server::transfer::download::DownloadQueue;
use crate::server::transfer::session_transfers::SessionTransfers;

/// The loop of a session whose user has logged in.
pub(crate) struct RequestLoop<'a, R> {
    pub(super) session: &'a mut SessionState<R>,
    pub(super) member: Member,
    /// The session's entry in the registry that operators see.
    pub(super) registration: Registration,
    pub(super) transfers: SessionTransfers,
    /// Created with the first small upload.
    pub(super) uploads: Option<Box<SmallUploads>>,
    /// Created with the first download.
    pub(super) downloads: Option<Arc<DownloadQueue>>,
    pub(super) batches: Batches,
    /// Bounds the requests that are not answered yet.
    pub(super) request_permits: Arc<Semaphore>,
    /// Bounds the large downloads that send at the same time.
    pub(super) download_permits: Arc<Semaphore>,
    /// The permit of the one listing of a tree that runs: each holds many names.
    pub(super) listings: Arc<Semaphore>,
    /// Changes of the rights of its user.
    pub(super) authority_changes: watch::Receiver<AuthorityState>,
    pub(super) phase: SessionPhase,
    pub(super) idle: IdleTimer,
    /// Receives the events of the session. Its user counts as connected while it exists.
    pub(super) subscription: Arc<Subscription>,
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

/// The next event that the session handles.
pub(super) enum LoopEvent {
    Frame(Result<Option<Frame>, ReceiveError>),
    /// No further frame has begun to arrive.
    Pause,
    Drain,
    Drained,
    Idle,
    Stop,
    /// The account of the user, or the token of the session, is closed.
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
        let is_framed = session.dialect == Dialect::Framed;
        let event_queue = is_framed.then(|| session.outbox.events().clone());
        let messages = &session.shared.messages;
        let subscription = messages.subscribe(&member.user_ref(), event_queue, inbox, since);
        let subscription = Arc::new(subscription);
        member.authority.add_subscription(&subscription);
        let config = session.shared.config();
        let limits = &config.limits;
        let request_permits = Arc::new(Semaphore::new(limits.requests));
        let transfers = SessionTransfers::new(request_permits.clone());
        let registration = session.register(&member, transfers.running().clone());
        Self {
            registration,
            transfers,
            uploads: None,
            downloads: None,
            batches: Batches::default(),
            request_permits,
            download_permits: Arc::new(Semaphore::new(limits.transfers)),
            listings: Arc::new(Semaphore::new(1)),
            authority_changes: member.authority.changes(),
            phase: SessionPhase::Serving,
            subscription,
            idle: IdleTimer::new(limits.idle_timeout),
            session,
            member,
        }
    }

    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.request_permits.clone().acquire_owned().await.ok()
    }

    /// Completes the requests of this session's tasks.
    pub(super) fn responder(&self) -> Responder {
        Responder {
            outbox: self.session.outbox.clone(),
            session_ended: self.session.session_ended.clone(),
        }
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let activity = self.idle.last_activity();
        let work = async move {
            work.await;
            activity.record();
        };
        self.session.tasks.spawn(work.in_current_span());
    }
}

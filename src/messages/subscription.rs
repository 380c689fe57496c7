//! One session's subscription to events: its inbox and its watches.

use std::sync::Arc;

use crate::connection::EventQueue;
use crate::messages::error::MessagesError;
use crate::messages::operation::{Operation, ReplySender, SessionOperation, WatchRequest};
use crate::messages::recipient::UserRef;
use crate::messages::state::MessagesState;
use crate::protocol::WatchReply;
use crate::storage::VisiblePath;

/// A registered session with its inbox and its watches. Dropping it ends both.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<MessagesState>,
    session: u64,
}

impl Subscription {
    /// Registers a session; see [`Messages::subscribe`](crate::messages::Messages::subscribe).
    pub(crate) fn start(
        shared: &Arc<MessagesState>,
        user: &UserRef,
        queue: Option<EventQueue>,
        inbox: bool,
        since: Option<u64>,
    ) -> Self {
        let has_inbox = inbox && queue.is_some();
        let connected = shared.store.uptime.clock.wall();
        let session = shared.presence().add_session(user, queue, connected);
        let subscription = Self {
            shared: Arc::clone(shared),
            session,
        };
        if has_inbox {
            let user = user.id;
            // Fails only if the sequencer has ended.
            let _ = subscription.send(SessionOperation::Subscribe { user, since });
        }
        subscription
    }

    /// Starts a watch on `path`, which covers `scopes`. The session receives the changes there from
    /// now on, and with `since` also the remembered ones after that `seq`.
    ///
    /// # Errors
    /// [`MessagesError::TooManyWatches`].
    pub async fn watch(
        &self,
        path: String,
        scopes: Vec<VisiblePath>,
        since: Option<u64>,
    ) -> Result<WatchReply, MessagesError> {
        self.request(|done| WatchRequest::Watch {
            path,
            scopes,
            since,
            done,
        })
        .await
    }

    /// Ends a watch. Returns `false` if the session has no watch with that number.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub async fn unwatch(&self, watch: u32) -> Result<bool, MessagesError> {
        self.request(|done| WatchRequest::Unwatch { watch, done })
            .await
    }

    /// The numbers and paths of the session's watches.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub async fn list_watches(&self) -> Result<Vec<(u32, String)>, MessagesError> {
        self.request(WatchRequest::List).await
    }

    /// Removes from the session's watches everything that is not in one of `spaces`.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub fn restrict_watches(&self, spaces: Vec<Arc<str>>) -> Result<(), MessagesError> {
        let request = WatchRequest::Restrict { spaces };
        self.send(SessionOperation::Watch(request))
    }

    /// Changes what a watch covers.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub fn set_watch_scopes(
        &self,
        watch: u32,
        scopes: Vec<VisiblePath>,
    ) -> Result<(), MessagesError> {
        let request = WatchRequest::SetScopes { watch, scopes };
        self.send(SessionOperation::Watch(request))
    }

    fn send(&self, operation: SessionOperation) -> Result<(), MessagesError> {
        self.shared
            .send_operation(Operation::Session(self.session, operation))
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(ReplySender<T>) -> WatchRequest,
    ) -> Result<T, MessagesError> {
        let session = self.session;
        self.shared
            .request(|done| Operation::Session(session, SessionOperation::Watch(request(done))))
            .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Fails only if the sequencer has ended.
        let _ = self.send(SessionOperation::Close);
    }
}

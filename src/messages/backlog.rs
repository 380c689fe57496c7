//! Catch-ups: a task per lagging session delivers the events that it missed from the database, as
//! fast as the session reads, until the session is live.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::error::MessagesError;
use crate::messages::operation::{CatchUpVerdict, Operation, SessionOperation};
use crate::messages::presence::LaggingSession;
use crate::messages::state::MessagesState;

/// The most events that a catch-up reads at a time.
pub(crate) const MAX_PAGE_EVENTS: usize = 128;

/// The number of attempts to become live that may find new events. After that, the sequencer queues
/// the remaining events itself; otherwise a busy session would never become live.
const MAX_TRIES: u32 = 8;

/// The pause before a failed read is retried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Starts the catch-up of a session. The task ends when the session is live or has ended.
pub(crate) fn spawn_catch_up(shared: &Arc<MessagesState>, lagging: LaggingSession) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let LaggingSession {
            session,
            user,
            queue,
            mut position,
        } = lagging;
        let mut tries = 0;
        while queue.drained().await {
            let force = tries >= MAX_TRIES;
            match queue_page(&shared, session, user, &queue, position, force).await {
                Ok(CatchUpVerdict::Live) | Err(MessagesError::Ended) => return,
                Ok(CatchUpVerdict::Behind(delivered)) => {
                    tries += u32::from(delivered == position);
                    position = delivered;
                }
                Err(error) => {
                    warn!(
                        name: "missed_unreadable",
                        %error,
                        "cannot read the events that a session missed; retrying"
                    );
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    });
}

/// Queues the next page of events. If there is none, asks the sequencer to make the session live.
async fn queue_page(
    shared: &MessagesState,
    session: u64,
    user: i64,
    queue: &EventQueue,
    position: u64,
    force: bool,
) -> Result<CatchUpVerdict, MessagesError> {
    let backlog = shared
        .store
        .backlog(user, position, MAX_PAGE_EVENTS)
        .await?;
    if backlog.is_complete && backlog.events.is_empty() {
        let (done, verdict) = oneshot::channel();
        let op = SessionOperation::CaughtUp {
            user,
            position: backlog.position,
            force,
            done,
        };
        shared.send_operation(Operation::Session(session, op))?;
        return verdict.await.map_err(|_| MessagesError::Ended);
    }
    for (seq, json) in backlog.events {
        let event = QueuedEvent {
            inbox_seq: Some(seq),
            json,
            receipt: None,
        };
        while queue.push(event.clone()).is_err() {
            if !queue.drained().await {
                return Err(MessagesError::Ended);
            }
        }
    }
    if queue.drained().await {
        shared.send_operation(Operation::Session(session, SessionOperation::Progress))?;
    }
    Ok(CatchUpVerdict::Behind(backlog.position))
}

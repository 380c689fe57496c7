//! A catch-up: a session is told from the database what it has missed, as fast as it reads, until
//! it is up to date and hears everything as it comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::operation::{Operation, SessionOperation};
use crate::messages::presence::LaggingSession;
use crate::messages::{MessagesError, MessagesState};

/// Events that are read at a time.
pub(crate) const PAGE: usize = 128;

/// How often more may have come meanwhile. Then the sequencer itself tells the rest: a session that
/// is told much has to get in between.
const TRIES: u32 = 8;

/// Before a database that failed is read again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the sequencer says to a session that has been told all that was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It hears from now on.
    Hears,
    /// More has come meanwhile; it was told up to there.
    NotYet(u64),
}

/// Catches a session up. Ends with the session, at the latest.
pub(crate) fn begin(shared: &Arc<MessagesState>, behind: LaggingSession) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let LaggingSession {
            session,
            user,
            lane,
            mut position,
        } = behind;
        let mut tries = 0;
        while lane.drained().await {
            let insists = tries >= TRIES;
            match step(&shared, session, user, &lane, position, insists).await {
                Ok(Verdict::Hears) | Err(MessagesError::Ended) => return,
                Ok(Verdict::NotYet(told)) => {
                    tries += u32::from(told == position);
                    position = told;
                }
                Err(error) => {
                    warn!(
                        name: "missed_unreadable",
                        %error,
                        "can not tell a session what it missed; trying again"
                    );
                    sleep(PAUSE).await;
                }
            }
        }
    });
}

async fn step(
    shared: &MessagesState,
    session: u64,
    user: i64,
    lane: &EventQueue,
    position: u64,
    insists: bool,
) -> Result<Verdict, MessagesError> {
    let backlog = shared.store.backlog(user, position, PAGE).await?;
    if backlog.is_complete && backlog.events.is_empty() {
        let (answer, verdict) = oneshot::channel();
        let op = SessionOperation::CaughtUp {
            user,
            position: backlog.position,
            insists,
            answer,
        };
        shared.tell_sequencer(Operation::Session(session, op))?;
        return verdict.await.map_err(|_| MessagesError::Ended);
    }
    for (seq, json) in backlog.events {
        let event = QueuedEvent {
            inbox: Some(seq),
            json,
            receipt: None,
        };
        while lane.push(event.clone()).is_err() {
            if !lane.drained().await {
                return Err(MessagesError::Ended);
            }
        }
    }
    if lane.drained().await {
        shared.tell_sequencer(Operation::Session(session, SessionOperation::Progress))?;
    }
    Ok(Verdict::NotYet(backlog.position))
}

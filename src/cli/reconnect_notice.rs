//! Notices about a lost connection, for commands that stay.

use tokio::sync::watch;

use crate::cli::remote_session::RemoteSession;
use crate::client::{Progress, Session, Waiting};

/// One line when the connection is lost, one when it is back.
pub(crate) struct ReconnectNotice {
    session: Session,
    waiting: watch::Receiver<Option<Waiting>>,
    lost: bool,
}

impl ReconnectNotice {
    pub(crate) fn for_session(remote: &RemoteSession, progress: &Progress) -> Self {
        Self {
            session: remote.session.clone(),
            waiting: progress.waiting(),
            lost: false,
        }
    }

    /// The next line. Cancel-safe.
    pub(crate) async fn next(&mut self) -> String {
        while self.waiting.changed().await.is_ok() {
            let waiting = self.waiting.borrow_and_update().clone();
            match waiting {
                Some(waiting) if waiting.connection_lost && !self.lost => {
                    self.lost = true;
                    return format!("connection lost: {}; connecting again", waiting.why);
                }
                // Between two attempts nothing is waited for either.
                None if self.lost && self.session.client().lost().is_none() => {
                    self.lost = false;
                    return "connected again".into();
                }
                _ => {}
            }
        }
        std::future::pending().await
    }
}

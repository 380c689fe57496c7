//! The events of a chat, on a task of its own, so that typing does not interrupt a reconnect.

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::cli::reconnect_notice::ReconnectNotice;
use crate::cli::remote_session::RemoteSession;
use crate::client::{ClientError, EventSubscription};
use crate::protocol::Event;

/// Events that may wait to be shown.
const WAITING: usize = 64;

/// What is to be shown.
#[derive(Debug)]
pub(crate) enum ChatEvent {
    Event(Event),
    /// A change of the connection.
    Note(String),
    /// Nothing will come any more.
    End(ClientError),
}

/// The way from the task.
pub(crate) struct ChatEvents {
    heard: mpsc::Receiver<ChatEvent>,
    _task: AbortOnDropHandle<()>,
}

impl ChatEvents {
    pub(crate) fn start(remote: &RemoteSession) -> Self {
        let live = EventSubscription::new(remote.session.clone());
        let waits = ReconnectNotice::for_session(remote, live.progress());
        let (sender, heard) = mpsc::channel(WAITING);
        Self {
            heard,
            _task: AbortOnDropHandle::new(tokio::spawn(hear(live, waits, sender))),
        }
    }

    /// Cancel-safe. Pending once nothing comes any more.
    pub(crate) async fn next(&mut self) -> ChatEvent {
        match self.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }
}

async fn hear(
    mut live: EventSubscription,
    mut waits: ReconnectNotice,
    sender: mpsc::Sender<ChatEvent>,
) {
    loop {
        let mut next = std::pin::pin!(live.next());
        let heard = loop {
            let note = tokio::select! {
                biased;
                note = waits.next() => note,
                event = &mut next => break event,
            };
            if sender.send(ChatEvent::Note(note)).await.is_err() {
                return;
            }
        };
        let (heard, is_last) = match heard {
            Ok(event) => (ChatEvent::Event(event), false),
            Err(error) => (ChatEvent::End(error), true),
        };
        if sender.send(heard).await.is_err() || is_last {
            return;
        }
    }
}

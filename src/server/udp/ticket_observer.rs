//! Copies the messages of a session to the holders of its tickets.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use serde::Deserialize;

use crate::connection::EventObserver;
use crate::server::udp::service::DatagramService;

/// The start of the events that are sent to the holders of tickets.
const MESSAGE_EVENT_PREFIX: &[u8] = br#"{"event":"message","#;

/// Observes the events of one session.
#[derive(Debug)]
pub(crate) struct TicketObserver {
    datagrams: Weak<DatagramService>,
    session: Arc<str>,
}

impl TicketObserver {
    pub(crate) fn new(datagrams: &Arc<DatagramService>, session: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            datagrams: Arc::downgrade(datagrams),
            session,
        })
    }
}

impl EventObserver for TicketObserver {
    fn on_event(&self, json: &Bytes) {
        #[derive(Deserialize)]
        struct MessageNumber {
            seq: u64,
        }
        if json.starts_with(MESSAGE_EVENT_PREFIX)
            && let Ok(MessageNumber { seq }) = serde_json::from_slice(json)
            && let Some(datagrams) = self.datagrams.upgrade()
        {
            datagrams.enqueue_message(&self.session, seq, json);
        }
    }
}

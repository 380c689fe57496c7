//! The delivery of stored events to inboxes: live delivery, catch-ups, and the replies to senders.

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::warn;

use crate::messages::backlog;
use crate::messages::backlog::MAX_PAGE_EVENTS;
use crate::messages::commit_group::CommitGroup;
use crate::messages::delivery::{FinishedDelivery, SayAcknowledgement};
use crate::messages::operation::{CatchUpVerdict, ReplySender};
use crate::messages::presence::PresenceChanges;
use crate::messages::recipient::Recipient;
use crate::messages::sequencer::Sequencer;
use crate::messages::store::event::StoredEvent;
use crate::protocol::{SayReply, encode_event};

impl Sequencer {
    /// Queues stored events for the live sessions of their recipients.
    pub(crate) fn deliver(
        &mut self,
        messages: Vec<StoredEvent>,
        replies: Vec<(ReplySender<SayReply>, OwnedSemaphorePermit)>,
    ) {
        if messages.is_empty() {
            return;
        }
        let mut batch = self.deliveries.new_batch();
        let mut changes = PresenceChanges::default();
        let mut presence = self.shared.presence();
        for (message, (done, permit)) in messages.into_iter().zip(replies) {
            let json = encode_event(&message.to_event());
            let seq = message.seq;
            let mut deliver = |user| presence.deliver(user, seq, &json, &mut batch, &mut changes);
            let delivered = match &message.to {
                Recipient::User(user) => deliver(user.id),
                Recipient::Room(_) => {
                    let members = message.members.iter().flat_map(|members| members.keys());
                    let others = members.filter(|member| **member != message.from.id);
                    others.copied().map(deliver).sum()
                }
            };
            batch.acknowledgements.push(SayAcknowledgement {
                done,
                reply: SayReply { seq, delivered },
                permit,
            });
        }
        drop(presence);
        self.apply_presence(&mut changes);
        self.deliveries.start(batch, Instant::now());
    }

    /// Starts to deliver the events that the user has not received, or those after `since`.
    pub(crate) async fn begin_catch_up(
        &mut self,
        user: i64,
        session: u64,
        since: Option<u64>,
        group: &mut CommitGroup,
    ) {
        self.apply_presence(&mut group.presence);
        let live = self.shared.presence().live_position(user);
        let unsaved = self.unsaved_inboxes.get(&user);
        let known = live.or(unsaved.map(|inbox| inbox.delivered));
        let delivered = match known {
            Some(delivered) => delivered,
            None => self.writer.delivered(user).await.unwrap_or_else(|error| {
                // Events that are delivered twice are better than events that are lost.
                warn!(
                    name: "told_unreadable",
                    %error,
                    "cannot read which events a user has received"
                );
                0
            }),
        };
        let position = since.map_or(delivered, |since| since.min(self.last_seq));
        let mut presence = self.shared.presence();
        let lagging = presence.begin_catch_up(session, position, delivered.max(position));
        group.presence.lagging.extend(lagging);
    }

    /// Makes a session live, unless it has missed new events. With `force`, queues those events if
    /// they fit into one page.
    pub(crate) async fn finish_catch_up(
        &mut self,
        user: i64,
        session: u64,
        position: u64,
        force: bool,
        group: &mut CommitGroup,
    ) -> CatchUpVerdict {
        {
            let mut presence = self.shared.presence();
            match presence.has_missed(session, position) {
                None => return CatchUpVerdict::Live,
                Some(false) => {
                    presence.set_live(session, position, &mut group.presence);
                    return CatchUpVerdict::Live;
                }
                Some(true) if !force => return CatchUpVerdict::Behind(position),
                Some(true) => {}
            }
        }
        let page = self.writer.backlog(user, position, MAX_PAGE_EVENTS).await;
        let Some(backlog) = page.ok().filter(|page| page.is_complete) else {
            return CatchUpVerdict::Behind(position);
        };
        let mut presence = self.shared.presence();
        if backlog.events.is_empty() {
            // The missed event was an offer that is closed by now.
            presence.set_live(session, backlog.position, &mut group.presence);
            return CatchUpVerdict::Live;
        }
        let mut batch = self.deliveries.new_batch();
        let all_queued = presence.queue_missed(session, backlog.events, &mut batch);
        let queued = presence.queued_position(session);
        drop(presence);
        self.deliveries.start(batch, Instant::now());
        if all_queued {
            CatchUpVerdict::Live
        } else {
            CatchUpVerdict::Behind(queued.unwrap_or(backlog.position))
        }
    }

    pub(crate) fn finish_delivery(&mut self, delivery: FinishedDelivery, group: &mut CommitGroup) {
        let mut presence = self.shared.presence();
        for (session, seq) in delivery.sessions {
            presence.finish_delivery(session, seq, &mut group.presence);
        }
        group.acknowledgements.extend(delivery.acknowledgements);
    }

    /// Records inbox positions to store, and starts catch-ups.
    pub(crate) fn apply_presence(&mut self, changes: &mut PresenceChanges) {
        self.unsaved_inboxes.extend(changes.inboxes.drain());
        for lagging in changes.lagging.drain(..) {
            backlog::spawn_catch_up(&self.shared, lagging);
        }
    }
}

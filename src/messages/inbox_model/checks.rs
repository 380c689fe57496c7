//! The comparison of the inbox model with the messages: retention, offers and deliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::messages::inbox_model::steps::InboxStep;
use crate::messages::inbox_model::{AcknowledgedEvent, InboxModel, USERS};

impl InboxModel {
    pub(super) async fn prune(&mut self, keep: Duration, most: u64) {
        let before = self.rows().await;
        let now = self.clock.elapsed();
        let _ = self.messages.expire_offers().await;
        let expired = self.rows().await;
        for text in before.keys().filter(|text| !expired.contains_key(*text)) {
            let stored = &self.state.stored[text];
            let offered = stored.keep.expect("only offers expire");
            assert!(
                now.saturating_sub(stored.at) >= offered,
                "{text} expired too early"
            );
        }
        let outcome = self.messages.prune(keep, most).await;
        let after = self.rows().await;
        let is_old = |text: &String| now.saturating_sub(self.state.stored[text].at) >= keep;
        // A sender with at most an equal share loses only events that are old.
        let senders: BTreeSet<_> = expired.values().map(|(_, sender)| *sender).collect();
        for sender in senders.iter().copied() {
            let of_sender = |rows: &BTreeMap<String, (i64, i64)>| {
                let rows = rows.iter().filter(|(_, (_, by))| *by == sender);
                let rows = rows.map(|(text, (seq, _))| (*seq, text.clone()));
                rows.collect::<BTreeMap<_, _>>()
            };
            let (had, has) = (of_sender(&expired), of_sender(&after));
            let young = had.values().filter(|text| !is_old(text)).count();
            let share = usize::try_from(most).expect("few") / senders.len();
            assert!(has.len() >= young.min(share), "{sender}: {had:?} {has:?}");
            if let Some(first) = has.keys().next() {
                let skipped = had.range(first..).count();
                assert_eq!(skipped, has.len(), "the oldest are deleted first");
            }
        }
        if outcome.is_ok() {
            assert!(after.len() as u64 <= most);
        }
        self.end(|text| before.contains_key(text) && !after.contains_key(text));
    }

    /// The stored events by their text, with `seq` and sender.
    async fn rows(&self) -> BTreeMap<String, (i64, i64)> {
        let readers = &self.messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT body, seq, sender FROM events ORDER BY seq")
                .fetch_all(&mut *transaction)
                .await
                .expect("readable");
        transaction.commit().await.expect("ended");
        let rows = rows.into_iter();
        rows.map(|(text, seq, sender)| (text, (seq, sender)))
            .collect()
    }

    /// Checks that each offer has its event, and each offer event its offer.
    pub(super) async fn check_offers(&self) {
        let readers = &self.messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let query = "SELECT (SELECT COUNT(*) FROM offers WHERE event NOT IN \
                     (SELECT seq FROM events WHERE kind = 1)), \
                     (SELECT COUNT(*) FROM events WHERE kind = 1 AND seq NOT IN \
                     (SELECT event FROM offers))";
        let unmatched: (i64, i64) = sqlx::query_as(query)
            .fetch_one(&mut *transaction)
            .await
            .expect("readable");
        transaction.commit().await.expect("ended");
        assert_eq!(unmatched, (0, 0));
    }

    /// Lets every user log in with their position, and checks that they have received everything.
    pub(super) async fn check_all_is_received(&mut self) {
        self.apply(InboxStep::FreeDisk).await;
        for user in 0..USERS {
            self.receive(user, true).await;
            let id = self.users[user].id;
            let received = self.received.entry(id).or_default();
            let stored = self.state.stored.iter();
            let now = self.clock.elapsed();
            let is_over = |stored: &AcknowledgedEvent| {
                stored
                    .keep
                    .is_some_and(|keep| now.saturating_sub(stored.at) >= keep)
            };
            let expected = stored.filter(|(_, stored)| stored.to.contains(&id) && !is_over(stored));
            for (text, _) in expected {
                let is_received =
                    received.contains(text) || self.ended.contains(&(id, text.clone()));
                assert!(is_received, "{id} never received {text}");
            }
        }
    }
}

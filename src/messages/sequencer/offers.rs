//! New offers, their limits, and their expiry.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::messages::commit_group::CommitGroup;
use crate::messages::error::MessagesError;
use crate::messages::operation::{ReplySender, reply};
use crate::messages::recipient::{Recipient, UserRef};
use crate::messages::sequencer::Sequencer;
use crate::messages::store::event::{OfferedFile, StoredEvent, StoredOffer};

/// The most open offers from one user, and the most to one user.
const MAX_OPEN_OFFERS: usize = 100;

impl Sequencer {
    pub(super) async fn offer(
        &mut self,
        from: UserRef,
        to: UserRef,
        offer: String,
        file: OfferedFile,
        keep: Duration,
        group: &CommitGroup,
    ) -> Result<StoredEvent, MessagesError> {
        self.check_offer_limits(&from, &to, group).await?;
        let mut event = self.new_event(from, Recipient::User(to), offer);
        let keep_signed = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        let expires = event.time.saturating_add(keep_signed);
        event.offer = Some(StoredOffer {
            file,
            expires: expires.unwrap_or(Timestamp::MAX),
            ends: event.uptime.saturating_add(keep),
        });
        Ok(event)
    }

    /// Checks the limits of open offers, including those of this group.
    async fn check_offer_limits(
        &mut self,
        from: &UserRef,
        to: &UserRef,
        group: &CommitGroup,
    ) -> Result<(), MessagesError> {
        let (made, received) = self.writer.count_open_offers(from.id, to.id).await?;
        let (new_made, new_received) = group.count_offers(from.id, &Recipient::User(to.clone()));
        if made + new_made >= MAX_OPEN_OFFERS {
            return Err(MessagesError::TooManyMade(MAX_OPEN_OFFERS));
        }
        if received + new_received >= MAX_OPEN_OFFERS {
            return Err(MessagesError::TooManyOpen {
                user: Arc::clone(&to.name),
                most: MAX_OPEN_OFFERS,
            });
        }
        Ok(())
    }

    pub(super) async fn expire_offers(&mut self, done: ReplySender<()>, group: &mut CommitGroup) {
        let uptime = self.writer.uptime.now();
        match self.writer.has_expired_offers(uptime).await {
            Ok(false) => reply(done, Ok(())),
            Ok(true) => {
                group.batch.expired = Some(uptime);
                group.offer_replies.push(done);
            }
            Err(error) => reply(done, Err(error)),
        }
    }
}

//! Offers: a user hands a file to another user, by reference.
//!
//! An offer is open until it is answered or withdrawn, or until servers have run for as long as it
//! is kept. The wall-clock time of its expiry is only shown to the receiver. A session that answers
//! an offer *claims* it first, so that only one answer counts; a claim that is dropped leaves the
//! offer open.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;

use crate::messages::error::MessagesError;
use crate::messages::handle::{Messages, PendingMessage};
use crate::messages::operation::Operation;
use crate::messages::recipient::UserRef;
use crate::messages::state::MessagesState;
use crate::messages::store::event::OfferedFile;
use crate::messages::store::offers::OfferParty;
use crate::protocol::OffersReply;

impl Messages {
    /// Offers a file of `from` to `to` for as long as `keep`. Returns the offer's identifier and the
    /// pending event.
    ///
    /// # Errors
    /// [`MessagesError::NoRandomness`] and [`MessagesError::NoSpace`]. The pending event fails with
    /// [`MessagesError::TooManyMade`], [`MessagesError::TooManyOpen`] or
    /// [`MessagesError::Database`].
    pub async fn offer(
        &self,
        from: UserRef,
        to: UserRef,
        file: OfferedFile,
        keep: Duration,
    ) -> Result<(String, PendingMessage), MessagesError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(MessagesError::NoRandomness)?;
        let offer = HEXLOWER.encode(&random);
        let pending = self
            .send_message(file.path.len(), |done, permit| Operation::Offer {
                from,
                to,
                offer: offer.clone(),
                file,
                keep,
                done,
                permit,
            })
            .await?;
        Ok((offer, pending))
    }

    /// The open offers to `user`, or with `sent` from `user`, the oldest first, as many as `budget`
    /// bytes of JSON hold.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn offers(
        &self,
        user: i64,
        sent: bool,
        budget: usize,
    ) -> Result<OffersReply, MessagesError> {
        self.shared.store.open_offers(user, sent, budget).await
    }

    /// Claims an offer to `user`, to accept it.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchOffer`], [`MessagesError::Database`].
    pub async fn claim_to_accept(
        &self,
        user: i64,
        offer: &str,
    ) -> Result<OfferClaim, MessagesError> {
        self.claim(user, offer, OfferParty::Receiver).await
    }

    /// Claims an offer to or from `user`, to decline or withdraw it.
    ///
    /// # Errors
    /// [`MessagesError::NoSuchOffer`], [`MessagesError::Database`].
    pub async fn claim_to_decline(
        &self,
        user: i64,
        offer: &str,
    ) -> Result<OfferClaim, MessagesError> {
        self.claim(user, offer, OfferParty::SenderOrReceiver).await
    }

    async fn claim(
        &self,
        user: i64,
        offer: &str,
        user_ref: OfferParty,
    ) -> Result<OfferClaim, MessagesError> {
        let guard = ClaimGuard::try_new(&self.shared, offer).ok_or(MessagesError::NoSuchOffer)?;
        let found = self.shared.store.find_offer(offer, user, user_ref).await?;
        let (from, file) = found.ok_or(MessagesError::NoSuchOffer)?;
        Ok(OfferClaim { from, file, guard })
    }

    /// Closes the offers that have expired.
    ///
    /// # Errors
    /// [`MessagesError::Database`].
    pub async fn expire_offers(&self) -> Result<(), MessagesError> {
        self.shared.request(Operation::ExpireOffers).await
    }
}

/// The exclusive right to answer an open offer. Dropping it leaves the offer open.
#[derive(Debug)]
pub struct OfferClaim {
    /// The sender of the offer.
    pub from: UserRef,
    /// The offered file.
    pub file: OfferedFile,
    guard: ClaimGuard,
}

impl OfferClaim {
    /// Closes the offer.
    ///
    /// # Errors
    /// [`MessagesError::Database`]: the offer is still open.
    pub async fn close(self) -> Result<(), MessagesError> {
        let offer = self.guard.offer.clone();
        self.guard
            .shared
            .request(|done| Operation::CloseOffer { offer, done })
            .await
    }
}

/// An entry in the set of claimed offers.
#[derive(Debug)]
struct ClaimGuard {
    shared: Arc<MessagesState>,
    offer: String,
}

impl ClaimGuard {
    /// `None` if the offer is claimed already.
    fn try_new(shared: &Arc<MessagesState>, offer: &str) -> Option<Self> {
        let is_new = shared.claimed_offers().insert(offer.to_owned());
        is_new.then(|| Self {
            shared: Arc::clone(shared),
            offer: offer.to_owned(),
        })
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        self.shared.claimed_offers().remove(&self.offer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::store::offers::OFFER_ENTRY_BYTES;

    fn user_ref(id: i64) -> UserRef {
        let name = format!("user{id}").into();
        UserRef { id, name }
    }

    fn file() -> OfferedFile {
        OfferedFile {
            path: "/secret/a b".into(),
            version: "1".into(),
            size: 7,
        }
    }

    async fn rows(messages: &Messages) -> (i64, i64) {
        let query = "SELECT (SELECT COUNT(*) FROM offers), (SELECT COUNT(*) FROM events)";
        let readers = &messages.shared.store.readers;
        let mut transaction = readers.read().await.expect("readable");
        let counted = sqlx::query_as(query).fetch_one(&mut *transaction);
        counted.await.expect("counted")
    }

    async fn offer(messages: &Messages, keep: Duration) -> String {
        let offering = messages.offer(user_ref(1), user_ref(2), file(), keep).await;
        let (offer, pending) = offering.expect("random bytes");
        pending.stored().await.expect("stored");
        offer
    }

    #[tokio::test]
    async fn an_expired_offer_is_neither_delivered_nor_claimed_and_is_deleted_with_its_event() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let over = offer(&messages, Duration::ZERO).await;
        let open = offer(&messages, Duration::MAX).await;
        let claimed = messages.claim_to_accept(2, &over).await;
        assert!(matches!(claimed, Err(MessagesError::NoSuchOffer)));
        let backlog = messages.shared.store.backlog(2, 0, 10).await;
        assert_eq!(backlog.expect("read").events.len(), 1);
        assert_eq!(rows(&messages).await, (2, 2));
        messages.expire_offers().await.expect("removed");
        assert_eq!(rows(&messages).await, (1, 1));
        let listed = messages
            .offers(2, false, 1 << 16)
            .await
            .expect("read")
            .offers;
        assert_eq!((&*listed[0].offer, &*listed[0].path), (&*open, "a b"));
    }

    #[tokio::test]
    async fn a_claim_is_exclusive_until_it_is_dropped_and_closing_it_ends_the_offer() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let offer = offer(&messages, Duration::MAX).await;
        let claim = messages.claim_to_accept(2, &offer).await.expect("claimed");
        assert_eq!((claim.from.id, &*claim.file.path), (1, "/secret/a b"));
        for user in [1, 2] {
            let second = messages.claim_to_decline(user, &offer).await;
            assert!(matches!(second, Err(MessagesError::NoSuchOffer)));
        }
        drop(claim);
        let claim = messages.claim_to_decline(1, &offer).await;
        claim.expect("claimed").close().await.expect("closed");
        assert_eq!(rows(&messages).await, (0, 0));
        let second = messages.claim_to_accept(2, &offer).await;
        assert!(matches!(second, Err(MessagesError::NoSuchOffer)));
        assert!(messages.shared.claimed_offers().is_empty());
    }

    #[tokio::test]
    async fn a_list_of_offers_keeps_to_its_budget_and_reports_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("messages");
        let first = offer(&messages, Duration::MAX).await;
        offer(&messages, Duration::MAX).await;
        let reply = messages
            .offers(2, false, OFFER_ENTRY_BYTES + 100)
            .await
            .expect("read");
        assert_eq!((&*reply.offers[0].offer, reply.offers.len()), (&*first, 1));
        assert!(reply.more);
    }
}

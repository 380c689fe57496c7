//! Limits open connections: in total, from each address, and of each user.
//!
//! At the total limit the oldest connections without a login are evicted for new ones, so clients that
//! never log in cannot keep users out. If all connections have a login, new ones wait.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::server::accept::address_block::AddressBlock;
use crate::server::limits::key_counter::KeyCounter;

/// At the limit, one connection in this many is evicted at once, so that the next new connections do not
/// have to wait for an eviction.
const EVICTION_DIVISOR: usize = 100;

/// The open connections of a server.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimiter {
    state: Mutex<ConnectionLimiterState>,
    /// A connection was closed.
    released: Notify,
}

#[derive(Debug, Default)]
struct ConnectionLimiterState {
    connections: usize,
    blocks: KeyCounter<AddressBlock>,
    users: KeyCounter<i64>,
    /// Connections without a login that are not evicted, the oldest first.
    unauthenticated: BTreeMap<u64, CancellationToken>,
    next_number: u64,
}

/// Counts one connection for its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressClaim {
    limiter: Arc<ConnectionLimiter>,
    block: AddressBlock,
}

/// Counts one open connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    user: Option<i64>,
    claim: Option<AddressClaim>,
    /// When it was accepted.
    pub(crate) accepted_at: Instant,
    /// Cancelled if it is evicted for another connection before its login.
    pub(crate) evicted: CancellationToken,
}

/// Why a login is refused after the credentials were right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserLimitError {
    /// The connection was evicted before.
    Evicted,
    /// The user has the greatest number of sessions already, which is this.
    TooMany(usize),
}

impl ConnectionLimiter {
    /// Counts one more connection from `block`, if there are fewer than `max`; 0 is no limit.
    pub(crate) fn claim_address(
        self: &Arc<Self>,
        block: AddressBlock,
        max: usize,
    ) -> Option<AddressClaim> {
        let counted = self.lock().blocks.add(block, max);
        counted.then(|| AddressClaim {
            limiter: self.clone(),
            block,
        })
    }

    /// Waits until fewer than `max` connections are open or one can be evicted. Cancel safe.
    pub(crate) async fn wait_for_capacity(&self, max: usize) {
        loop {
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            {
                let state = self.lock();
                if state.connections < max || !state.unauthenticated.is_empty() {
                    return;
                }
            }
            released.await;
        }
    }

    /// Waits for a permit of at most `max`; at the limit, evicts connections without a login.
    /// Cancel safe.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        max: usize,
        claim: Option<AddressClaim>,
    ) -> ConnectionPermit {
        loop {
            let mut released = pin!(self.released.notified());
            released.as_mut().enable();
            {
                let mut state = self.lock();
                if state.connections < max {
                    return state.issue_permit(self.clone(), claim);
                }
                state.evict(max);
            }
            released.await;
        }
    }

    /// Evicts the oldest connections without a login, because the system has no resources for more.
    pub(crate) fn evict_unauthenticated(&self, max: usize) {
        self.lock().evict(max);
    }

    /// Open connections, those of them without a login, and all connections since the start.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (
            state.connections,
            state.unauthenticated.len(),
            state.next_number,
        )
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionLimiterState> {
        self.state.lock()
    }
}

impl ConnectionLimiterState {
    fn evict(&mut self, max: usize) {
        for _ in 0..=max / EVICTION_DIVISOR {
            if let Some((_, evicted)) = self.unauthenticated.pop_first() {
                evicted.cancel();
            }
        }
    }

    fn issue_permit(
        &mut self,
        limiter: Arc<ConnectionLimiter>,
        claim: Option<AddressClaim>,
    ) -> ConnectionPermit {
        let (number, evicted) = (self.next_number, CancellationToken::new());
        self.next_number += 1;
        self.connections += 1;
        self.unauthenticated.insert(number, evicted.clone());
        ConnectionPermit {
            limiter,
            number,
            user: None,
            claim,
            accepted_at: Instant::now(),
            evicted,
        }
    }
}

impl ConnectionPermit {
    /// A permit of a limiter of its own: the connection counts for no limit.
    pub(crate) fn unlimited() -> Self {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut state = limiter.lock();
        state.issue_permit(limiter.clone(), None)
    }

    /// Counts the connection for an address that was not known when it was accepted; `false` if that
    /// address has `max` connections already.
    pub(crate) fn claim_address(&mut self, block: AddressBlock, max: usize) -> bool {
        self.claim = self.limiter.claim_address(block, max);
        self.claim.is_some()
    }

    /// Counts the connection for the user who has logged in, if that user has fewer than `max`
    /// sessions; 0 is no limit. It is never evicted afterwards.
    ///
    /// # Errors
    /// [`UserLimitError`]; nothing is changed then.
    pub(crate) fn assign_user(&mut self, user: i64, max: usize) -> Result<(), UserLimitError> {
        let mut state = self.limiter.lock();
        if !state.unauthenticated.contains_key(&self.number) {
            return Err(UserLimitError::Evicted);
        }
        if !state.users.add(user, max) {
            return Err(UserLimitError::TooMany(max));
        }
        state.unauthenticated.remove(&self.number);
        self.user = Some(user);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.limiter.lock();
        state.connections -= 1;
        state.unauthenticated.remove(&self.number);
        if let Some(user) = self.user {
            state.users.remove(&user);
        }
        drop(state);
        self.limiter.released.notify_waiters();
    }
}

impl Drop for AddressClaim {
    fn drop(&mut self) {
        self.limiter.lock().blocks.remove(&self.block);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use futures::FutureExt;

    use super::*;

    const HERE: AddressBlock = AddressBlock::InProcess;

    #[tokio::test]
    async fn connections_of_one_address_are_limited_and_others_do_not_count() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let claims: Vec<_> = (0..3)
            .filter_map(|_| limiter.claim_address(HERE, 3))
            .collect();
        assert_eq!(claims.len(), 3);
        assert!(limiter.claim_address(HERE, 3).is_none());
        assert!(
            limiter
                .claim_address(AddressBlock::V6(Ipv6Addr::LOCALHOST), 3)
                .is_some()
        );
        assert!(limiter.claim_address(HERE, 0).is_some(), "0 is no limit");
        drop(claims);
        assert!(limiter.claim_address(HERE, 1).is_some());
        assert!(
            limiter.lock().blocks.0.is_empty(),
            "only open connections are counted"
        );
    }

    #[tokio::test]
    async fn the_oldest_connection_without_a_login_is_evicted_first_and_users_stay() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut member = limiter.acquire(3, None).await;
        let first = limiter.acquire(3, None).await;
        let second = limiter.acquire(3, None).await;
        member.assign_user(7, 0).expect("below the limit");
        let (first_evicted, second_evicted) = (first.evicted.clone(), second.evicted.clone());
        let mut next = Box::pin(limiter.acquire(3, None));
        assert!(
            next.as_mut().now_or_never().is_none(),
            "the first is still open"
        );
        assert!(first_evicted.is_cancelled() && !second_evicted.is_cancelled());
        drop(first);
        let next = next.await;
        assert_eq!(limiter.lock().connections, 3);
        assert!(!member.evicted.is_cancelled() && !next.evicted.is_cancelled());
    }

    #[tokio::test]
    async fn if_all_connections_have_a_login_new_ones_wait_until_one_closes() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut members = Vec::new();
        for _ in 0..2 {
            let mut permit = limiter.acquire(2, None).await;
            permit.assign_user(7, 0).expect("below the limit");
            members.push(permit);
        }
        let mut capacity = Box::pin(limiter.wait_for_capacity(2));
        assert!(capacity.as_mut().now_or_never().is_none());
        members.pop();
        capacity.await;
        limiter.acquire(2, None).await;
    }

    #[tokio::test]
    async fn eviction_on_demand_takes_the_oldest_connections_without_a_login() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut member = limiter.acquire(9, None).await;
        member.assign_user(7, 0).expect("below the limit");
        let (first, second) = (
            limiter.acquire(9, None).await,
            limiter.acquire(9, None).await,
        );
        limiter.evict_unauthenticated(9);
        assert!(first.evicted.is_cancelled());
        assert!(!member.evicted.is_cancelled() && !second.evicted.is_cancelled());
    }

    #[tokio::test]
    async fn an_evicted_connection_cannot_log_in() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut waiting = limiter.acquire(1, None).await;
        let next = limiter.acquire(1, None);
        assert!(next.now_or_never().is_none());
        assert_eq!(waiting.assign_user(7, 0), Err(UserLimitError::Evicted));
    }

    #[tokio::test]
    async fn sessions_of_one_user_are_limited_until_one_ends() {
        let limiter = Arc::new(ConnectionLimiter::default());
        let mut permits = Vec::new();
        for _ in 0..3 {
            permits.push(limiter.acquire(9, None).await);
        }
        permits[0].assign_user(7, 2).expect("the first");
        permits[1].assign_user(7, 2).expect("the second");
        assert_eq!(
            permits[2].assign_user(7, 2),
            Err(UserLimitError::TooMany(2))
        );
        permits[2].assign_user(8, 2).expect("another user");
        permits.remove(0);
        let mut permit = limiter.acquire(9, None).await;
        permit.assign_user(7, 2).expect("below the limit again");
        drop((permit, permits));
        let state = limiter.lock();
        assert!(
            state.connections == 0 && state.users.0.is_empty() && state.unauthenticated.is_empty()
        );
    }
}

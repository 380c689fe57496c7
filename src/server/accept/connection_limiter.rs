//! Who is in: connections in all, from each address and of each user.
//!
//! While there is room everyone comes in. Once there is none, whoever has been in longest without
//! logging in has to go: the silent can not lock members out. Only where all have logged in do new
//! ones wait.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::server::accept::address_block::AddressBlock;
use crate::server::limits::key_counter::KeyCounter;

/// Once there is no room, one in so many has to go at once: whoever comes next need not wait until
/// they have.
const MADE_ROOM: usize = 100;

/// The connections of a server.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimiter {
    state: Mutex<LimiterState>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct LimiterState {
    connections: usize,
    blocks: KeyCounter<AddressBlock>,
    users: KeyCounter<i64>,
    /// Who has not logged in and was not told to go, the first one first.
    visitors: BTreeMap<u64, CancellationToken>,
    numbers: u64,
}

/// A connection that counts for its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct AddressClaim {
    door: Arc<ConnectionLimiter>,
    block: AddressBlock,
}

/// A connection that is in, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    door: Arc<ConnectionLimiter>,
    number: u64,
    user: Option<i64>,
    claim: Option<AddressClaim>,
    /// When it came in.
    pub(crate) since: Instant,
    /// Cancelled if it has to go for others before it has logged in.
    pub(crate) evicted: CancellationToken,
}

/// Why a user can not stay who has just logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserLimitError {
    /// The connection had to go before.
    Evicted,
    /// The user has as many sessions as one may have.
    TooMany(usize),
}

impl ConnectionLimiter {
    /// Counts one more connection from `block`, if there are fewer than `most`; 0 is no limit.
    pub(crate) fn claim(
        self: &Arc<Self>,
        block: AddressBlock,
        most: usize,
    ) -> Option<AddressClaim> {
        let counted = self.lock().blocks.add(block, most);
        counted.then(|| AddressClaim {
            door: self.clone(),
            block,
        })
    }

    /// Waits until one more could come in, of `most`.
    pub(crate) async fn room(&self, most: usize) {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            {
                let state = self.lock();
                if state.connections < most || !state.visitors.is_empty() {
                    return;
                }
            }
            left.await;
        }
    }

    /// Lets one in. Where there are `most`, some who have not logged in have to go for it.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        most: usize,
        claim: Option<AddressClaim>,
    ) -> ConnectionPermit {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            {
                let mut state = self.lock();
                if state.connections < most {
                    return state.seat(self.clone(), claim);
                }
                state.evict(most);
            }
            left.await;
        }
    }

    /// Has some go who have not logged in, of `most`: the system has no room for others.
    pub(crate) fn make_room(&self, most: usize) {
        self.lock().evict(most);
    }

    /// Connections that are there, those of them on which nobody has logged in yet, and all that
    /// there were since the start.
    pub(crate) fn counts(&self) -> (usize, usize, u64) {
        let state = self.lock();
        (state.connections, state.visitors.len(), state.numbers)
    }

    fn lock(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LimiterState {
    fn evict(&mut self, most: usize) {
        for _ in 0..=most / MADE_ROOM {
            if let Some((_, evicted)) = self.visitors.pop_first() {
                evicted.cancel();
            }
        }
    }

    fn seat(
        &mut self,
        door: Arc<ConnectionLimiter>,
        claim: Option<AddressClaim>,
    ) -> ConnectionPermit {
        let (number, evicted) = (self.numbers, CancellationToken::new());
        self.numbers += 1;
        self.connections += 1;
        self.visitors.insert(number, evicted.clone());
        ConnectionPermit {
            door,
            number,
            user: None,
            claim,
            since: Instant::now(),
            evicted,
        }
    }
}

impl ConnectionPermit {
    /// The seat of a connection that came through no door: it counts for nobody.
    pub(crate) fn apart() -> Self {
        let door = Arc::new(ConnectionLimiter::default());
        let mut state = door.lock();
        state.seat(door.clone(), None)
    }

    /// Counts the connection for an address that was not known when it came in.
    pub(crate) fn claim(&mut self, block: AddressBlock, most: usize) -> bool {
        self.claim = self.door.claim(block, most);
        self.claim.is_some()
    }

    /// Its user has logged in, and stays if there are fewer than `most` sessions of that user; 0 is
    /// no limit. From then on the connection has to go for nobody.
    ///
    /// # Errors
    /// [`Unseated`]; nothing is changed then.
    pub(crate) fn admit(&mut self, user: i64, most: usize) -> Result<(), UserLimitError> {
        let mut state = self.door.lock();
        if !state.visitors.contains_key(&self.number) {
            return Err(UserLimitError::Evicted);
        }
        if !state.users.add(user, most) {
            return Err(UserLimitError::TooMany(most));
        }
        state.visitors.remove(&self.number);
        self.user = Some(user);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.connections -= 1;
        state.visitors.remove(&self.number);
        if let Some(user) = self.user {
            state.users.remove(&user);
        }
        drop(state);
        self.door.left.notify_waiters();
    }
}

impl Drop for AddressClaim {
    fn drop(&mut self) {
        self.door.lock().blocks.remove(&self.block);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use futures::FutureExt;

    use super::*;

    const HERE: AddressBlock = AddressBlock::Here;

    #[tokio::test]
    async fn one_address_has_as_many_connections_as_it_may_and_others_are_not_counted() {
        let door = Arc::new(ConnectionLimiter::default());
        let claims: Vec<_> = (0..3).filter_map(|_| door.claim(HERE, 3)).collect();
        assert_eq!(claims.len(), 3);
        assert!(door.claim(HERE, 3).is_none());
        assert!(
            door.claim(AddressBlock::V6(Ipv6Addr::LOCALHOST), 3)
                .is_some()
        );
        assert!(door.claim(HERE, 0).is_some(), "0 is no limit");
        drop(claims);
        assert!(door.claim(HERE, 1).is_some());
        assert!(
            door.lock().blocks.0.is_empty(),
            "only what is in is remembered"
        );
    }

    #[tokio::test]
    async fn who_has_been_in_longest_without_logging_in_goes_first_and_members_stay() {
        let door = Arc::new(ConnectionLimiter::default());
        let mut member = door.enter(3, None).await;
        let first = door.enter(3, None).await;
        let second = door.enter(3, None).await;
        member.admit(7, 0).expect("room");
        let (told, second_told) = (first.evicted.clone(), second.evicted.clone());
        let mut next = Box::pin(door.enter(3, None));
        assert!(
            next.as_mut().now_or_never().is_none(),
            "the first is still there"
        );
        assert!(told.is_cancelled() && !second_told.is_cancelled());
        drop(first);
        let next = next.await;
        assert_eq!(door.lock().connections, 3);
        assert!(!member.evicted.is_cancelled() && !next.evicted.is_cancelled());
    }

    #[tokio::test]
    async fn where_all_have_logged_in_new_ones_wait_until_one_leaves() {
        let door = Arc::new(ConnectionLimiter::default());
        let mut members = Vec::new();
        for _ in 0..2 {
            let mut seat = door.enter(2, None).await;
            seat.admit(7, 0).expect("room");
            members.push(seat);
        }
        let mut room = Box::pin(door.room(2));
        assert!(room.as_mut().now_or_never().is_none());
        members.pop();
        room.await;
        door.enter(2, None).await;
    }

    #[tokio::test]
    async fn where_the_system_has_no_room_the_oldest_who_have_not_logged_in_go() {
        let door = Arc::new(ConnectionLimiter::default());
        let mut member = door.enter(9, None).await;
        member.admit(7, 0).expect("room");
        let (first, second) = (door.enter(9, None).await, door.enter(9, None).await);
        door.make_room(9);
        assert!(first.evicted.is_cancelled());
        assert!(!member.evicted.is_cancelled() && !second.evicted.is_cancelled());
    }

    #[tokio::test]
    async fn who_is_told_to_go_can_not_log_in_any_more() {
        let door = Arc::new(ConnectionLimiter::default());
        let mut visitor = door.enter(1, None).await;
        let next = door.enter(1, None);
        assert!(next.now_or_never().is_none());
        assert_eq!(visitor.admit(7, 0), Err(UserLimitError::Evicted));
    }

    #[tokio::test]
    async fn a_user_has_as_many_sessions_as_one_may_until_one_ends() {
        let door = Arc::new(ConnectionLimiter::default());
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(door.enter(9, None).await);
        }
        seats[0].admit(7, 2).expect("the first");
        seats[1].admit(7, 2).expect("the second");
        assert_eq!(seats[2].admit(7, 2), Err(UserLimitError::TooMany(2)));
        seats[2].admit(8, 2).expect("another user");
        seats.remove(0);
        let mut seat = door.enter(9, None).await;
        seat.admit(7, 2).expect("room again");
        drop((seat, seats));
        let state = door.lock();
        assert!(state.connections == 0 && state.users.0.is_empty() && state.visitors.is_empty());
    }
}

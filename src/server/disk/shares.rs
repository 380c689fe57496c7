//! How the threads for the disk, the digests that are computed at once, and the descriptors for files
//! are divided among the users.
//!
//! All that a piece of work needs is granted in one step, so nobody holds a part of it while they
//! wait for the rest. A user who holds some of a resource gets more of it only while they hold less
//! than a third of what is free of it: the more users work, the less each holds, and who holds nothing
//! finds some. Who waits is served user by user.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A user who holds some of a resource gets more of it while they hold less than one in so many of
/// those that are free.
const SHARE: usize = 3;

/// What one piece of work needs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceRequest {
    /// A thread.
    Thread,
    /// A thread and one of the digests that are computed at once.
    Digest,
    /// A thread and so many descriptors, for no longer than it runs.
    Batch(usize),
    /// The descriptors of a file that stays open while other work is done.
    File,
}

impl ResourceRequest {
    const KINDS: usize = 4;

    fn kind(self) -> usize {
        match self {
            Self::Thread => 0,
            Self::Digest => 1,
            Self::Batch(_) => 2,
            Self::File => 3,
        }
    }

    /// What is taken of each resource.
    fn amounts(self) -> ResourceAmounts {
        let [threads, digests, descriptors, files] = match self {
            Self::Thread => [1, 0, 0, 0],
            Self::Digest => [1, 1, 0, 0],
            Self::Batch(descriptors) => [1, 0, descriptors, 0],
            Self::File => [0, 0, 0, 1],
        };
        ResourceAmounts {
            threads,
            digests,
            descriptors,
            files,
        }
    }
}

/// So much of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResourceAmounts {
    pub(crate) threads: usize,
    pub(crate) digests: usize,
    pub(crate) descriptors: usize,
    pub(crate) files: usize,
}

impl ResourceAmounts {
    fn add(&mut self, other: Self) {
        self.threads += other.threads;
        self.digests += other.digests;
        self.descriptors += other.descriptors;
        self.files += other.files;
    }

    fn remove(&mut self, other: Self) {
        self.threads -= other.threads;
        self.digests -= other.digests;
        self.descriptors -= other.descriptors;
        self.files -= other.files;
    }

    /// Whether a user who holds `held` may take `self` of what is `free`.
    fn fit(self, held: Self, free: Self) -> bool {
        fits(self.threads, held.threads, free.threads)
            // A digest is over soon; users take turns at them.
            && self.digests <= free.digests
            && fits(self.descriptors, held.descriptors, free.descriptors)
            && fits(self.files, held.files, free.files)
    }
}

fn fits(wanted: usize, held: usize, free: usize) -> bool {
    wanted == 0 || wanted <= free && (held == 0 || (held + wanted - 1) * SHARE < free)
}

/// What there is for all users, and who has it.
#[derive(Debug)]
pub(crate) struct Shares {
    total: ResourceAmounts,
    state: Mutex<State>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    free: ResourceAmounts,
    users: HashMap<i64, UserShare>,
    /// Users who wait, the one who is looked at next first.
    ring: VecDeque<i64>,
    numbers: u64,
}

/// What one user holds and waits for, in all of their sessions. Absent if that is nothing.
#[derive(Debug, Default)]
struct UserShare {
    held: ResourceAmounts,
    /// By kind, so that who waits for something rare holds up nothing else.
    waiting: [VecDeque<Waiter>; ResourceRequest::KINDS],
    in_ring: bool,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    need: ResourceRequest,
    granted: oneshot::Sender<ResourceGrant>,
}

/// What was granted to a piece of work, until it is dropped.
#[derive(Debug)]
pub(crate) struct ResourceGrant {
    /// Absent if nobody was there to take it.
    shares: Option<Arc<Shares>>,
    user: i64,
    need: ResourceRequest,
}

impl Drop for ResourceGrant {
    fn drop(&mut self) {
        if let Some(shares) = self.shares.take() {
            let mut state = shares.lock();
            state.give_back(self.user, self.need);
            state.grant(&shares);
        }
    }
}

impl Shares {
    pub(crate) fn new(total: ResourceAmounts) -> Self {
        let state = State {
            free: total,
            users: HashMap::new(),
            ring: VecDeque::new(),
            numbers: 0,
        };
        Self {
            total,
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn total(&self) -> ResourceAmounts {
        self.total
    }

    pub(crate) fn free(&self) -> ResourceAmounts {
        self.lock().free
    }

    /// Pieces of work that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is needed, if it is free and the user may have it now.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        user: i64,
        need: ResourceRequest,
    ) -> Option<ResourceGrant> {
        self.lock().try_take(self, user, need)
    }

    /// Waits for all that is needed, and holds nothing meanwhile. Cancel-safe.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        user: i64,
        need: ResourceRequest,
    ) -> Option<ResourceGrant> {
        let granted = {
            let mut state = self.lock();
            if let Some(turn) = state.try_take(self, user, need) {
                return Some(turn);
            }
            state.wait(user, need)
        };
        let _counted = Counted::new(&self.waiting);
        granted.await.ok()
    }
}

impl State {
    /// Takes it if it is free, the user may have it, and none of their own work waits for the same.
    fn try_take(
        &mut self,
        shares: &Arc<Shares>,
        user: i64,
        need: ResourceRequest,
    ) -> Option<ResourceGrant> {
        let own = self.users.entry(user).or_default();
        let is_next = own.waiting[need.kind()].iter().all(Waiter::is_gone);
        if is_next && need.amounts().fit(own.held, self.free) {
            own.held.add(need.amounts());
            self.free.remove(need.amounts());
            return Some(ResourceGrant {
                shares: Some(Arc::clone(shares)),
                user,
                need,
            });
        }
        self.forget_idle(user);
        None
    }

    fn wait(&mut self, user: i64, need: ResourceRequest) -> oneshot::Receiver<ResourceGrant> {
        let (granted, receiver) = oneshot::channel();
        let own = self.users.entry(user).or_default();
        let waiting = &mut own.waiting[need.kind()];
        if waiting.len() == waiting.capacity() {
            waiting.retain(|waiter| !waiter.is_gone());
        }
        waiting.push_back(Waiter {
            number: self.numbers,
            need,
            granted,
        });
        self.numbers += 1;
        if !std::mem::replace(&mut own.in_ring, true) {
            self.ring.push_back(user);
        }
        receiver
    }

    fn give_back(&mut self, user: i64, need: ResourceRequest) {
        self.free.add(need.amounts());
        if let Some(own) = self.users.get_mut(&user) {
            own.held.remove(need.amounts());
        }
        self.forget_idle(user);
    }

    /// Serves those who wait, in turns, until nothing is free that one of them may have.
    fn grant(&mut self, shares: &Arc<Shares>) {
        let mut passed = 0;
        while passed < self.ring.len() {
            let Some(user) = self.ring.pop_front() else {
                return;
            };
            let (free, own) = (self.free, self.users.get_mut(&user));
            match own.map_or(Next::Nobody, |own| own.next(free)) {
                Next::Nobody => {
                    if let Some(own) = self.users.get_mut(&user) {
                        own.in_ring = false;
                    }
                    self.forget_idle(user);
                    continue;
                }
                Next::Blocked => passed += 1,
                Next::Fits(waiter) => {
                    passed = 0;
                    self.give(shares, user, waiter);
                }
            }
            self.ring.push_back(user);
        }
    }

    fn give(&mut self, shares: &Arc<Shares>, user: i64, waiter: Waiter) {
        let need = waiter.need;
        if let Some(own) = self.users.get_mut(&user) {
            own.held.add(need.amounts());
        }
        self.free.remove(need.amounts());
        let turn = ResourceGrant {
            shares: Some(Arc::clone(shares)),
            user,
            need,
        };
        if let Err(mut turn) = waiter.granted.send(turn) {
            // Dropped by itself it would lock again what is locked here.
            turn.shares = None;
            self.give_back(user, need);
        }
    }

    fn forget_idle(&mut self, user: i64) {
        let is_idle = |own: &UserShare| !own.in_ring && own.held == ResourceAmounts::default();
        if self.users.get(&user).is_some_and(is_idle) {
            self.users.remove(&user);
        }
    }
}

/// Whom of a user's work to serve.
enum Next {
    Nobody,
    /// Some of it waits, and nothing of what that needs is to be had.
    Blocked,
    Fits(Waiter),
}

impl UserShare {
    /// What has waited longest of what may run now.
    fn next(&mut self, free: ResourceAmounts) -> Next {
        let held = self.held;
        let mut oldest = None;
        let mut is_waiting = false;
        for (kind, waiting) in self.waiting.iter_mut().enumerate() {
            while waiting.front().is_some_and(Waiter::is_gone) {
                waiting.pop_front();
            }
            let Some(first) = waiting.front() else {
                continue;
            };
            is_waiting = true;
            let is_older = oldest.is_none_or(|(number, _)| first.number < number);
            if is_older && first.need.amounts().fit(held, free) {
                oldest = Some((first.number, kind));
            }
        }
        match oldest.and_then(|(_, kind)| self.waiting[kind].pop_front()) {
            Some(waiter) => Next::Fits(waiter),
            None if is_waiting => Next::Blocked,
            None => Next::Nobody,
        }
    }
}

impl Waiter {
    fn is_gone(&self) -> bool {
        self.granted.is_closed()
    }
}

/// One more, until it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Ordering::Relaxed);
        Self(number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Shares {
    /// Whether nobody holds or waits for anything, and nobody is remembered.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.free == self.total && state.users.is_empty() && state.ring.is_empty()
    }

    /// What is remembered of a user's work that waits, or waited, for a thread.
    pub(crate) fn kept_waiters(&self, user: i64) -> usize {
        self.lock().users[&user].waiting[ResourceRequest::Thread.kind()].len()
    }
}

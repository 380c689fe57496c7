//! Divides disk threads, concurrent digests, and file descriptors among the users.
//!
//! All resources of a job are granted in one step, so no job holds some while it waits for others. A
//! user who holds some of a resource gets more of it only while they hold less than a third of what is
//! free: the more users work, the less each holds, and some is left for a user who holds nothing.
//! Waiting users are served in turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// A user who holds some of a resource gets more of it while they hold less than the free amount divided
/// by this.
const FREE_SHARE_DIVISOR: usize = 3;

/// The resources that one job needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceRequest {
    /// A thread.
    Thread,
    /// A thread and a permit for a digest.
    Digest,
    /// A thread and this many descriptors, while the job runs.
    Batch(usize),
    /// The descriptors of a file that stays open between jobs.
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

    /// The amount of each resource.
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

/// An amount of each resource.
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
            // No share for digests: they are short, and users are served in turn.
            && self.digests <= free.digests
            && fits(self.descriptors, held.descriptors, free.descriptors)
            && fits(self.files, held.files, free.files)
    }
}

fn fits(wanted: usize, held: usize, free: usize) -> bool {
    wanted == 0 || wanted <= free && (held == 0 || (held + wanted - 1) * FREE_SHARE_DIVISOR < free)
}

/// The resources of all users.
#[derive(Debug)]
pub(crate) struct ResourceShares {
    total: ResourceAmounts,
    state: Mutex<ResourceSharesState>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct ResourceSharesState {
    free: ResourceAmounts,
    users: HashMap<i64, UserShare>,
    /// Users with waiting jobs, the next one first.
    ring: VecDeque<i64>,
    next_number: u64,
}

/// The resources and waiting jobs of one user, in all of their sessions. Absent if there are none.
#[derive(Debug, Default)]
struct UserShare {
    held: ResourceAmounts,
    /// By kind of request, so that jobs that wait for a scarce resource do not block others.
    waiting: [VecDeque<Waiter>; ResourceRequest::KINDS],
    in_ring: bool,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    need: ResourceRequest,
    granted: oneshot::Sender<ResourceGrant>,
}

/// The resources of a job, released when it is dropped.
#[derive(Debug)]
pub(crate) struct ResourceGrant {
    /// `None` if the waiter was gone before the grant.
    shares: Option<Arc<ResourceShares>>,
    user: i64,
    need: ResourceRequest,
}

impl Drop for ResourceGrant {
    fn drop(&mut self) {
        if let Some(shares) = self.shares.take() {
            let mut state = shares.lock();
            state.release(self.user, self.need);
            state.grant(&shares);
        }
    }
}

impl ResourceShares {
    pub(crate) fn new(total: ResourceAmounts) -> Self {
        let state = ResourceSharesState {
            free: total,
            users: HashMap::new(),
            ring: VecDeque::new(),
            next_number: 0,
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

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, ResourceSharesState> {
        self.state.lock()
    }

    /// Grants the request if the resources are free and the user may have them now.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        user: i64,
        need: ResourceRequest,
    ) -> Option<ResourceGrant> {
        self.lock().try_acquire(self, user, need)
    }

    /// Waits for all resources of the request, and holds none meanwhile. Cancel safe.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        user: i64,
        need: ResourceRequest,
    ) -> Option<ResourceGrant> {
        let granted = {
            let mut state = self.lock();
            if let Some(grant) = state.try_acquire(self, user, need) {
                return Some(grant);
            }
            state.enqueue(user, need)
        };
        let _counted = WaitingGuard::new(&self.waiting);
        granted.await.ok()
    }
}

impl ResourceSharesState {
    /// Grants the request if the resources are free, the user may have them, and no other job of the
    /// user waits for the same kind.
    fn try_acquire(
        &mut self,
        shares: &Arc<ResourceShares>,
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
        self.remove_if_idle(user);
        None
    }

    fn enqueue(&mut self, user: i64, need: ResourceRequest) -> oneshot::Receiver<ResourceGrant> {
        let (granted, receiver) = oneshot::channel();
        let own = self.users.entry(user).or_default();
        let waiting = &mut own.waiting[need.kind()];
        if waiting.len() == waiting.capacity() {
            waiting.retain(|waiter| !waiter.is_gone());
        }
        waiting.push_back(Waiter {
            number: self.next_number,
            need,
            granted,
        });
        self.next_number += 1;
        if !std::mem::replace(&mut own.in_ring, true) {
            self.ring.push_back(user);
        }
        receiver
    }

    fn release(&mut self, user: i64, need: ResourceRequest) {
        self.free.add(need.amounts());
        if let Some(own) = self.users.get_mut(&user) {
            own.held.remove(need.amounts());
        }
        self.remove_if_idle(user);
    }

    /// Serves waiting users in turn, until no waiting job fits the free resources.
    fn grant(&mut self, shares: &Arc<ResourceShares>) {
        let mut passed = 0;
        while passed < self.ring.len() {
            let Some(user) = self.ring.pop_front() else {
                return;
            };
            let (free, own) = (self.free, self.users.get_mut(&user));
            match own.map_or(NextWaiter::NoneWaiting, |own| own.next(free)) {
                NextWaiter::NoneWaiting => {
                    if let Some(own) = self.users.get_mut(&user) {
                        own.in_ring = false;
                    }
                    self.remove_if_idle(user);
                    continue;
                }
                NextWaiter::Blocked => passed += 1,
                NextWaiter::Fits(waiter) => {
                    passed = 0;
                    self.grant_to(shares, user, waiter);
                }
            }
            self.ring.push_back(user);
        }
    }

    fn grant_to(&mut self, shares: &Arc<ResourceShares>, user: i64, waiter: Waiter) {
        let need = waiter.need;
        if let Some(own) = self.users.get_mut(&user) {
            own.held.add(need.amounts());
        }
        self.free.remove(need.amounts());
        let grant = ResourceGrant {
            shares: Some(Arc::clone(shares)),
            user,
            need,
        };
        if let Err(mut grant) = waiter.granted.send(grant) {
            // Its `Drop` would lock the state that this function holds locked.
            grant.shares = None;
            self.release(user, need);
        }
    }

    fn remove_if_idle(&mut self, user: i64) {
        let is_idle = |own: &UserShare| !own.in_ring && own.held == ResourceAmounts::default();
        if self.users.get(&user).is_some_and(is_idle) {
            self.users.remove(&user);
        }
    }
}

/// The next job of a user.
enum NextWaiter {
    NoneWaiting,
    /// Jobs wait, but none fits the free resources.
    Blocked,
    Fits(Waiter),
}

impl UserShare {
    /// The job that has waited longest of those that may run now.
    fn next(&mut self, free: ResourceAmounts) -> NextWaiter {
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
            Some(waiter) => NextWaiter::Fits(waiter),
            None if is_waiting => NextWaiter::Blocked,
            None => NextWaiter::NoneWaiting,
        }
    }
}

impl Waiter {
    fn is_gone(&self) -> bool {
        self.granted.is_closed()
    }
}

/// Counts one waiter, until it is dropped.
struct WaitingGuard<'a>(&'a AtomicUsize);

impl<'a> WaitingGuard<'a> {
    fn new(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Ordering::Relaxed);
        Self(number)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl ResourceShares {
    /// Whether no resource is held, no job waits, and no user is remembered.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.free == self.total && state.users.is_empty() && state.ring.is_empty()
    }

    /// The number of remembered waiters of a user for a thread, cancelled ones included.
    pub(crate) fn kept_waiters(&self, user: i64) -> usize {
        self.lock().users[&user].waiting[ResourceRequest::Thread.kind()].len()
    }
}

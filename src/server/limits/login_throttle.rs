//! Back-off against guessing of passwords and tokens.
//!
//! The throttle counts failures for each pair of account and address, for each address, and for each
//! account. Each count has its own effect:
//!
//! - **Pair of account and address**: after too many failures the next attempt must wait, twice as long
//!   each time. A success resets the count. Only this address can cause it.
//! - **Address**: the same for all accounts together, except for accounts that logged in from this
//!   address within the last day. A success does not reset the count, because an attacker may have an
//!   account.
//! - **Account**: after too many failures from all addresses, attempts from addresses without a recent
//!   login of the account take longer, but are never refused. So an attacker cannot lock a user out.
//!
//! Accounts are identified by the name that was given, whether it exists or not, so the answer does not
//! reveal which names exist. Each token counts as an account, so a program with an expired token delays
//! only itself.
//!
//! Memory is bounded: a new entry replaces the least recently used one. Refused attempts add no entry,
//! so one address cannot evict the entries about itself. Many addresses can, at the cost of one
//! password hash per entry, which gains them fewer guesses than it costs. Successes are kept in a
//! separate table, which only clients with an account can fill.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::server::accept::address_block::AddressBlock;

/// The most entries of each table.
const MAX_ENTRIES: usize = 10_000;

/// An address may fail this many times more often than one account from it: many users may share it.
const BLOCK_FACTOR: u32 = 4;

/// An account may fail this many times more often before attempts from unknown addresses are slowed.
const ACCOUNT_FACTOR: u32 = 10;

/// The first back-off; each next one is twice as long.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// The longest delay of an attempt on an account under attack.
const MAX_SLOWDOWN: Duration = Duration::from_secs(3);

/// Failures are forgotten this long after the last back-off.
const FORGET_AFTER: Duration = Duration::from_mins(15);

/// An account trusts an address for this long after a login from there.
const TRUST_DURATION: Duration = Duration::from_hours(24);

/// The settings of the throttle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginThrottleRules {
    /// Failures of one account from one address before the next attempt must wait.
    pub(crate) attempts: u32,
    /// The longest back-off.
    pub(crate) back_off: Duration,
}

impl LoginThrottleRules {
    /// The back-off after `failures` failures, where `factor` times the usual attempts are free.
    fn pause(self, failures: u32, factor: u32) -> Option<Duration> {
        let more = failures.checked_sub(self.attempts.saturating_mul(factor))?;
        Some(
            FIRST_BACK_OFF
                .saturating_mul(1 << more.min(20))
                .min(self.back_off),
        )
    }
}

/// The target of an attempt, hashed: an account by the name that was given, or a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LoginTarget(u64);

/// Counts failed logins and derives back-offs from them.
#[derive(Debug, Default)]
pub(crate) struct LoginThrottle {
    tables: Mutex<LoginThrottleTables>,
    /// Keyed with a random secret, so that an attacker cannot choose names that collide.
    hasher: RandomState,
}

#[derive(Debug)]
struct LoginThrottleTables {
    pairs: FailureTable<(LoginTarget, AddressBlock)>,
    blocks: FailureTable<AddressBlock>,
    accounts: FailureTable<LoginTarget>,
    trusted: LruCache<(LoginTarget, AddressBlock), Instant>,
}

impl Default for LoginThrottleTables {
    fn default() -> Self {
        Self {
            pairs: FailureTable::default(),
            blocks: FailureTable::default(),
            accounts: FailureTable::default(),
            trusted: LruCache::unbounded(),
        }
    }
}

impl LoginThrottle {
    pub(crate) fn user_target(&self, name: &str) -> LoginTarget {
        LoginTarget(self.hasher.hash_one(("user", name)))
    }

    pub(crate) fn token_target(&self, token: &str) -> LoginTarget {
        LoginTarget(self.hasher.hash_one(("token", token)))
    }

    /// Checks whether `target` may be tried from `block` now; returns the delay of the attempt.
    ///
    /// # Errors
    /// How long to wait before the next attempt. The refused attempt is not counted.
    pub(crate) fn check(
        &self,
        target: LoginTarget,
        block: AddressBlock,
        rules: LoginThrottleRules,
        now: Instant,
    ) -> Result<Duration, Duration> {
        let mut tables = self.lock();
        let pair = (target, block);
        let trusted = tables.trusted.peek(&pair);
        let is_trusted = trusted.is_some_and(|last| now < *last + TRUST_DURATION);
        let mut wait = tables.pairs.wait(&pair, now);
        if !is_trusted {
            wait = wait.or(tables.blocks.wait(&block, now));
        }
        if let Some(wait) = wait {
            return Err(wait);
        }
        // Of several attempts that wait for the same back-off, one proceeds and the others wait on.
        tables.pairs.reserve(&pair, rules, 1, now);
        if is_trusted {
            return Ok(Duration::ZERO);
        }
        tables.blocks.reserve(&block, rules, BLOCK_FACTOR, now);
        let failures = tables.accounts.failures(&target, rules, now);
        let pause = rules.pause(failures, ACCOUNT_FACTOR).unwrap_or_default();
        Ok(pause.min(MAX_SLOWDOWN))
    }

    /// Counts an attempt that [`Self::check`] allowed and that failed.
    pub(crate) fn record_failure(
        &self,
        target: LoginTarget,
        block: AddressBlock,
        rules: LoginThrottleRules,
        now: Instant,
    ) {
        let mut tables = self.lock();
        tables.pairs.record_failure((target, block), rules, 1, now);
        tables
            .blocks
            .record_failure(block, rules, BLOCK_FACTOR, now);
        tables
            .accounts
            .record_failure(target, rules, ACCOUNT_FACTOR, now);
    }

    /// Records an attempt that succeeded.
    pub(crate) fn record_success(&self, target: LoginTarget, block: AddressBlock, now: Instant) {
        let mut tables = self.lock();
        tables.pairs.0.pop(&(target, block));
        let before = tables.trusted.put((target, block), now);
        // The first login of a day used up an attempt of the address; as it succeeded, give it back.
        if before.is_none_or(|last| now >= last + TRUST_DURATION)
            && let Some(entry) = tables.blocks.0.peek_mut(&block)
        {
            entry.until = entry.until.min(now);
        }
        if tables.trusted.len() > MAX_ENTRIES {
            tables.trusted.pop_lru();
        }
    }

    fn lock(&self) -> MutexGuard<'_, LoginThrottleTables> {
        self.tables.lock()
    }
}

/// Failures by key.
#[derive(Debug)]
struct FailureTable<K: Hash + Eq>(LruCache<K, FailureRecord>);

#[derive(Debug, Clone, Copy)]
struct FailureRecord {
    count: u32,
    /// The end of the back-off.
    until: Instant,
}

impl<K: Hash + Eq> Default for FailureTable<K> {
    fn default() -> Self {
        Self(LruCache::unbounded())
    }
}

impl<K: Hash + Eq> FailureTable<K> {
    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let until = self.0.peek(key)?.until;
        until
            .checked_duration_since(now)
            .filter(|wait| !wait.is_zero())
    }

    /// The number of failures that are not forgotten.
    fn failures(&self, key: &K, rules: LoginThrottleRules, now: Instant) -> u32 {
        let entry = self.0.peek(key);
        let remembered = entry.filter(|entry| now < entry.until + FORGET_AFTER + rules.back_off);
        remembered.map_or(0, |entry| entry.count)
    }

    /// Restarts the back-off, as if the attempt that proceeds had failed.
    fn reserve(&mut self, key: &K, rules: LoginThrottleRules, factor: u32, now: Instant) {
        let failures = self.failures(key, rules, now);
        if let Some(pause) = rules.pause(failures, factor)
            && let Some(entry) = self.0.get_mut(key)
        {
            entry.until = now + pause;
        }
    }

    fn record_failure(&mut self, key: K, rules: LoginThrottleRules, factor: u32, now: Instant) {
        let count = self.failures(&key, rules, now).saturating_add(1);
        let until = now + rules.pause(count, factor).unwrap_or_default();
        self.0.put(key, FailureRecord { count, until });
        if self.0.len() > MAX_ENTRIES {
            self.0.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests;

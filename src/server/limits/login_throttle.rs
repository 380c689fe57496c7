//! Back-off against guessing passwords and tokens.
//!
//! Failures are remembered for each account from each address, for each address, and for each
//! account. The three answer differently:
//!
//! - **This account from this address** failed too often: the next attempt has to wait, for twice as
//!   long each time. A success ends that. Only its own address can cause it.
//! - **This address** failed too often, with whatever accounts: the same, but not for an account
//!   that has logged in from there within the last day. A success does not end it: who guesses could
//!   have one account of their own.
//! - **This account** failed too often, from wherever: attempts from addresses that it has not logged
//!   in from lately take longer, and are never refused. So no one can lock a user out from
//!   elsewhere.
//!
//! Accounts are told apart by what was asked for, whether it exists or not, so that an answer says
//! nothing about that. A token is an account of its own here: a program with an old one holds up
//! nobody but itself.
//!
//! What is remembered is bounded: the least recently used entry is forgotten for a new one. Refused
//! attempts make none, so an address can not push out the entries about itself: it would be refused
//! for its own sake after a few. Many addresses together can, at the price of one password hash for
//! each entry, and would win fewer guesses than they spend. Successes lie in a table of their own,
//! in which only those with an account can push anything out.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::server::accept::address_block::AddressBlock;

/// Entries of each table.
const ENTRIES: usize = 10_000;

/// An address may fail so many times as often as one account from it: many may share it.
const BLOCK_FACTOR: u32 = 4;

/// An account may fail so many times as often before attempts from strange addresses are slow.
const ACCOUNT_FACTOR: u32 = 10;

/// The first back-off; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);

/// The longest that an attempt on an account under attack is held up.
const SLOWEST: Duration = Duration::from_secs(3);

/// Failures are forgotten so long after the last back-off.
const FORGOTTEN: Duration = Duration::from_mins(15);

/// A login from an address vouches for it for so long.
const TRUSTED: Duration = Duration::from_hours(24);

/// The settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Failures of one account from one address before the next attempt has to wait.
    pub(crate) attempts: u32,
    /// The longest that it has to wait.
    pub(crate) back_off: Duration,
}

impl Rules {
    /// How long the next attempt waits after so many failures, where so many times as many are free.
    fn pause(self, failures: u32, factor: u32) -> Option<Duration> {
        let more = failures.checked_sub(self.attempts.saturating_mul(factor))?;
        Some(FIRST.saturating_mul(1 << more.min(20)).min(self.back_off))
    }
}

/// What an attempt is for: an account by the name that was given, or a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Target(u64);

/// What is remembered of failed logins.
#[derive(Debug, Default)]
pub(crate) struct LoginThrottle {
    tables: Mutex<Tables>,
    /// With a secret of its own, so that nobody can choose names that fall together.
    hasher: RandomState,
}

#[derive(Debug)]
struct Tables {
    pairs: Table<(Target, AddressBlock)>,
    blocks: Table<AddressBlock>,
    accounts: Table<Target>,
    trusted: LruCache<(Target, AddressBlock), Instant>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            pairs: Table::default(),
            blocks: Table::default(),
            accounts: Table::default(),
            trusted: LruCache::unbounded(),
        }
    }
}

impl LoginThrottle {
    pub(crate) fn of_user(&self, name: &str) -> Target {
        Target(self.hasher.hash_one(("user", name)))
    }

    pub(crate) fn of_token(&self, token: &str) -> Target {
        Target(self.hasher.hash_one(("token", token)))
    }

    /// Whether `target` may be tried from `block` now, and how much slower than usual.
    ///
    /// # Errors
    /// How long to wait before the next attempt. Nothing is remembered of this one.
    pub(crate) fn check(
        &self,
        target: Target,
        block: AddressBlock,
        rules: Rules,
        now: Instant,
    ) -> Result<Duration, Duration> {
        let mut tables = self.lock();
        let pair = (target, block);
        let trusted = tables.trusted.peek(&pair);
        let is_trusted = trusted.is_some_and(|last| now < *last + TRUSTED);
        let mut wait = tables.pairs.wait(&pair, now);
        if !is_trusted {
            wait = wait.or(tables.blocks.wait(&block, now));
        }
        if let Some(wait) = wait {
            return Err(wait);
        }
        // Of those that wait for the same moment, one may try and the others go on waiting.
        tables.pairs.reserve(&pair, rules, 1, now);
        if is_trusted {
            return Ok(Duration::ZERO);
        }
        tables.blocks.reserve(&block, rules, BLOCK_FACTOR, now);
        let failures = tables.accounts.failures(&target, rules, now);
        let pause = rules.pause(failures, ACCOUNT_FACTOR).unwrap_or_default();
        Ok(pause.min(SLOWEST))
    }

    /// An attempt that was let through was wrong.
    pub(crate) fn failed(&self, target: Target, block: AddressBlock, rules: Rules, now: Instant) {
        let mut tables = self.lock();
        tables.pairs.failed((target, block), rules, 1, now);
        tables.blocks.failed(block, rules, BLOCK_FACTOR, now);
        tables.accounts.failed(target, rules, ACCOUNT_FACTOR, now);
    }

    /// An attempt was right.
    pub(crate) fn succeeded(&self, target: Target, block: AddressBlock, now: Instant) {
        let mut tables = self.lock();
        tables.pairs.0.pop(&(target, block));
        let before = tables.trusted.put((target, block), now);
        // The first of a day from there took its turn among those that the address has; it was not
        // that of a guess.
        if before.is_none_or(|last| now >= last + TRUSTED)
            && let Some(entry) = tables.blocks.0.peek_mut(&block)
        {
            entry.until = entry.until.min(now);
        }
        if tables.trusted.len() > ENTRIES {
            tables.trusted.pop_lru();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Failures by what they are counted for.
#[derive(Debug)]
struct Table<K: Hash + Eq>(LruCache<K, Failures>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// The next attempt has to wait until then.
    until: Instant,
}

impl<K: Hash + Eq> Default for Table<K> {
    fn default() -> Self {
        Self(LruCache::unbounded())
    }
}

impl<K: Hash + Eq> Table<K> {
    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let until = self.0.peek(key)?.until;
        until
            .checked_duration_since(now)
            .filter(|wait| !wait.is_zero())
    }

    /// Failures that are not forgotten yet.
    fn failures(&self, key: &K, rules: Rules, now: Instant) -> u32 {
        let entry = self.0.peek(key);
        let remembered = entry.filter(|entry| now < entry.until + FORGOTTEN + rules.back_off);
        remembered.map_or(0, |entry| entry.count)
    }

    /// Begins the back-off again, as if the attempt that is let through had failed.
    fn reserve(&mut self, key: &K, rules: Rules, factor: u32, now: Instant) {
        let failures = self.failures(key, rules, now);
        if let Some(pause) = rules.pause(failures, factor)
            && let Some(entry) = self.0.get_mut(key)
        {
            entry.until = now + pause;
        }
    }

    fn failed(&mut self, key: K, rules: Rules, factor: u32, now: Instant) {
        let count = self.failures(&key, rules, now).saturating_add(1);
        let until = now + rules.pause(count, factor).unwrap_or_default();
        self.0.put(key, Failures { count, until });
        if self.0.len() > ENTRIES {
            self.0.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const RULES: Rules = Rules {
        attempts: 5,
        back_off: Duration::from_mins(1),
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn block(number: u32) -> AddressBlock {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    /// Guesses, with a clock that is told.
    struct Attack {
        guesses: LoginThrottle,
        now: Instant,
    }

    impl Attack {
        fn begin() -> Self {
            Self {
                guesses: LoginThrottle::default(),
                now: Instant::now(),
            }
        }

        /// One wrong guess, if it is let through.
        fn guess(&self, name: &str, from: u32) -> Result<Duration, Duration> {
            let target = self.guesses.of_user(name);
            let slower = self.guesses.check(target, block(from), RULES, self.now)?;
            self.guesses.failed(target, block(from), RULES, self.now);
            Ok(slower)
        }

        /// The owner, who knows the secret.
        fn log_in(&self, name: &str, from: u32) -> Result<Duration, Duration> {
            let target = self.guesses.of_user(name);
            let slower = self.guesses.check(target, block(from), RULES, self.now)?;
            self.guesses.succeeded(target, block(from), self.now);
            Ok(slower)
        }
    }

    #[test]
    fn after_five_failures_each_further_attempt_waits_twice_as_long_up_to_the_limit() {
        let mut attack = Attack::begin();
        for _ in 0..5 {
            assert_eq!(attack.guess("alice", 1), Ok(Duration::ZERO));
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let wait = SECOND * wait;
            assert_eq!(attack.guess("alice", 1), Err(wait));
            attack.now += wait / 2;
            assert_eq!(
                attack.guess("alice", 1),
                Err(wait / 2),
                "no refusal adds to it"
            );
            attack.now += wait / 2;
            assert_eq!(attack.guess("alice", 1), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn names_that_exist_and_names_that_do_not_are_answered_alike() {
        let attack = Attack::begin();
        for name in ["alice", "nobody", "", &"x".repeat(4000)] {
            // Each from a place of its own, so that only the account is looked at.
            let from = u32::try_from(name.len()).expect("short");
            for _ in 0..5 {
                assert_eq!(attack.guess(name, from), Ok(Duration::ZERO));
            }
            assert_eq!(attack.guess(name, from), Err(SECOND));
        }
    }

    #[test]
    fn a_success_ends_the_back_off_of_that_account_from_that_address() {
        let mut attack = Attack::begin();
        for _ in 0..5 {
            attack.guess("alice", 1).expect("free");
        }
        attack.now += SECOND;
        attack.log_in("alice", 1).expect("its turn");
        for _ in 0..5 {
            assert_eq!(attack.guess("alice", 1), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn of_many_attempts_at_the_end_of_a_back_off_one_is_let_through() {
        let mut attack = Attack::begin();
        for _ in 0..5 {
            attack.guess("alice", 1).expect("free");
        }
        attack.now += SECOND;
        let target = attack.guesses.of_user("alice");
        let check = || attack.guesses.check(target, block(1), RULES, attack.now);
        let through = (0..100).filter(|_| check().is_ok()).count();
        assert_eq!(through, 1);
    }

    #[test]
    fn an_address_that_tries_many_accounts_is_backed_off_and_who_logged_in_from_there_is_not() {
        let attack = Attack::begin();
        attack.log_in("alice", 1).expect("free");
        let tried = (0..1000).filter(|n| attack.guess(&format!("user {n}"), 1).is_ok());
        assert_eq!(tried.count(), 20);
        assert_eq!(attack.log_in("alice", 1), Ok(Duration::ZERO));
        assert_eq!(attack.guess("bob", 1), Err(SECOND));
        assert_eq!(attack.guess("bob", 2), Ok(Duration::ZERO));
    }

    #[test]
    fn who_gets_the_turn_of_an_address_and_is_right_does_not_hold_up_the_next() {
        let mut attack = Attack::begin();
        for number in 0..30 {
            while attack.guess(&format!("user {number}"), 1).is_err() {
                attack.now += SECOND;
            }
        }
        attack.now += RULES.back_off;
        for name in ["alice", "bob", "carol"] {
            assert_eq!(attack.log_in(name, 1), Ok(Duration::ZERO));
        }
    }

    #[test]
    fn one_success_does_not_free_an_address_that_guesses() {
        let attack = Attack::begin();
        let mut tried = 0;
        for n in 0..1000 {
            let _ = attack.log_in("mallory", 1);
            tried += u32::from(attack.guess(&format!("user {n}"), 1).is_ok());
        }
        assert_eq!(tried, 20);
    }

    #[test]
    fn a_victim_is_never_refused_for_what_other_addresses_do() {
        let mut attack = Attack::begin();
        attack.log_in("alice", 0).expect("free");
        for minute in 0..60 {
            for from in 1..200 {
                let _ = attack.guess("alice", from);
            }
            assert_eq!(attack.log_in("alice", 0), Ok(Duration::ZERO), "{minute}");
            // From a place where she has never been she is slower, and comes in.
            let elsewhere = attack.log_in("alice", 10_000 + minute);
            assert!(elsewhere.expect("let through") <= SLOWEST);
            attack.now += SECOND * 60;
        }
        assert_eq!(attack.guess("alice", 20_000), Ok(SLOWEST));
    }

    #[test]
    fn a_program_with_an_old_token_holds_up_nobody_else_at_its_address() {
        let attack = Attack::begin();
        let old = attack.guesses.of_token("haul_old");
        let (now, here) = (attack.now, block(1));
        for _ in 0..5 {
            attack.guesses.check(old, here, RULES, now).expect("free");
            attack.guesses.failed(old, here, RULES, now);
        }
        assert!(attack.guesses.check(old, here, RULES, now).is_err());
        let new = attack.guesses.of_token("haul_new");
        assert!(attack.guesses.check(new, here, RULES, now).is_ok());
        let name = attack.guesses.of_user("haul_old");
        assert!(attack.guesses.check(name, here, RULES, now).is_ok());
    }

    #[test]
    fn failures_are_forgotten_after_a_while() {
        let mut attack = Attack::begin();
        for _ in 0..4 {
            attack.guess("alice", 1).expect("free");
        }
        attack.now += FORGOTTEN + RULES.back_off;
        for _ in 0..5 {
            assert_eq!(attack.guess("alice", 1), Ok(Duration::ZERO));
        }
    }

    /// As many names, each from an address of its own, as no table holds.
    fn flood(names: u32) {
        let attack = Attack::begin();
        attack.log_in("alice", 7).expect("free");
        for number in 0..names {
            let guess = attack.guess(&format!("name {number}"), 100 + number);
            guess.expect("free");
        }
        let tables = attack.guesses.lock();
        assert_eq!(tables.pairs.0.len(), ENTRIES);
        assert_eq!(tables.blocks.0.len(), ENTRIES);
        assert_eq!(tables.accounts.0.len(), ENTRIES);
        assert_eq!(tables.trusted.len(), 1, "only a login is vouched for");
    }

    #[test]
    fn what_is_remembered_of_many_names_from_many_addresses_is_bounded() {
        flood(25_000);
    }

    #[test]
    #[ignore = "takes a minute where nothing is optimised"]
    fn what_is_remembered_of_a_million_names_is_bounded() {
        flood(1_000_000);
    }

    #[test]
    fn what_is_remembered_of_successes_is_bounded() {
        let attack = Attack::begin();
        for from in 0..15_000 {
            attack.log_in("alice", from).expect("never refused");
        }
        assert_eq!(attack.guesses.lock().trusted.len(), ENTRIES);
    }

    #[test]
    fn an_address_can_not_push_out_what_is_remembered_of_itself() {
        let attack = Attack::begin();
        for _ in 0..5 {
            attack.guess("alice", 1).expect("free");
        }
        for number in 0..20_000 {
            let _ = attack.guess(&format!("name {number}"), 1);
        }
        assert!(attack.guess("alice", 1).is_err());
        assert!(attack.guesses.lock().pairs.0.len() <= 20);
    }
}

use std::net::{IpAddr, Ipv4Addr};

use super::*;

const RULES: LoginThrottleRules = LoginThrottleRules {
    attempts: 5,
    back_off: Duration::from_mins(1),
};

const SECOND: Duration = Duration::from_secs(1);

fn block(number: u32) -> AddressBlock {
    IpAddr::from(Ipv4Addr::from_bits(number)).into()
}

/// An attacker, with a simulated clock.
struct GuessingAttack {
    throttle: LoginThrottle,
    now: Instant,
}

impl GuessingAttack {
    fn begin() -> Self {
        Self {
            throttle: LoginThrottle::default(),
            now: Instant::now(),
        }
    }

    /// One wrong guess, if the throttle allows it.
    fn guess(&self, name: &str, from: u32) -> Result<Duration, Duration> {
        let target = self.throttle.user_target(name);
        let slower = self.throttle.check(target, block(from), RULES, self.now)?;
        self.throttle
            .record_failure(target, block(from), RULES, self.now);
        Ok(slower)
    }

    /// A login with the right password.
    fn log_in(&self, name: &str, from: u32) -> Result<Duration, Duration> {
        let target = self.throttle.user_target(name);
        let slower = self.throttle.check(target, block(from), RULES, self.now)?;
        self.throttle.record_success(target, block(from), self.now);
        Ok(slower)
    }
}

#[test]
fn after_five_failures_each_further_attempt_waits_twice_as_long_up_to_the_limit() {
    let mut attack = GuessingAttack::begin();
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
fn existing_and_unknown_names_are_treated_alike() {
    let attack = GuessingAttack::begin();
    for name in ["alice", "nobody", "", &"x".repeat(4000)] {
        // Each from its own address, so that only the account counts.
        let from = u32::try_from(name.len()).expect("short");
        for _ in 0..5 {
            assert_eq!(attack.guess(name, from), Ok(Duration::ZERO));
        }
        assert_eq!(attack.guess(name, from), Err(SECOND));
    }
}

#[test]
fn a_success_ends_the_back_off_of_that_account_from_that_address() {
    let mut attack = GuessingAttack::begin();
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
fn one_of_many_attempts_at_the_end_of_a_back_off_proceeds() {
    let mut attack = GuessingAttack::begin();
    for _ in 0..5 {
        attack.guess("alice", 1).expect("free");
    }
    attack.now += SECOND;
    let target = attack.throttle.user_target("alice");
    let check = || attack.throttle.check(target, block(1), RULES, attack.now);
    let through = (0..100).filter(|_| check().is_ok()).count();
    assert_eq!(through, 1);
}

#[test]
fn an_address_that_tries_many_accounts_is_refused_except_for_accounts_that_trust_it() {
    let attack = GuessingAttack::begin();
    attack.log_in("alice", 1).expect("free");
    let tried = (0..1000).filter(|n| attack.guess(&format!("user {n}"), 1).is_ok());
    assert_eq!(tried.count(), 20);
    assert_eq!(attack.log_in("alice", 1), Ok(Duration::ZERO));
    assert_eq!(attack.guess("bob", 1), Err(SECOND));
    assert_eq!(attack.guess("bob", 2), Ok(Duration::ZERO));
}

#[test]
fn a_successful_login_does_not_delay_the_next_login_from_its_address() {
    let mut attack = GuessingAttack::begin();
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
fn a_success_does_not_reset_the_count_of_its_address() {
    let attack = GuessingAttack::begin();
    let mut tried = 0;
    for n in 0..1000 {
        let _ = attack.log_in("mallory", 1);
        tried += u32::from(attack.guess(&format!("user {n}"), 1).is_ok());
    }
    assert_eq!(tried, 20);
}

#[test]
fn attempts_from_other_addresses_never_lock_a_user_out() {
    let mut attack = GuessingAttack::begin();
    attack.log_in("alice", 0).expect("free");
    for minute in 0..60 {
        for from in 1..200 {
            let _ = attack.guess("alice", from);
        }
        assert_eq!(attack.log_in("alice", 0), Ok(Duration::ZERO), "{minute}");
        // From an unknown address her login is slower, but succeeds.
        let elsewhere = attack.log_in("alice", 10_000 + minute);
        assert!(elsewhere.expect("let through") <= MAX_SLOWDOWN);
        attack.now += SECOND * 60;
    }
    assert_eq!(attack.guess("alice", 20_000), Ok(MAX_SLOWDOWN));
}

#[test]
fn a_program_with_an_expired_token_delays_no_other_login_from_its_address() {
    let attack = GuessingAttack::begin();
    let old = attack.throttle.token_target("haul_old");
    let (now, address) = (attack.now, block(1));
    for _ in 0..5 {
        attack
            .throttle
            .check(old, address, RULES, now)
            .expect("free");
        attack.throttle.record_failure(old, address, RULES, now);
    }
    assert!(attack.throttle.check(old, address, RULES, now).is_err());
    let new = attack.throttle.token_target("haul_new");
    assert!(attack.throttle.check(new, address, RULES, now).is_ok());
    let name = attack.throttle.user_target("haul_old");
    assert!(attack.throttle.check(name, address, RULES, now).is_ok());
}

#[test]
fn old_failures_are_forgotten() {
    let mut attack = GuessingAttack::begin();
    for _ in 0..4 {
        attack.guess("alice", 1).expect("free");
    }
    attack.now += FORGET_AFTER + RULES.back_off;
    for _ in 0..5 {
        assert_eq!(attack.guess("alice", 1), Ok(Duration::ZERO));
    }
}

/// Guesses more names than the tables hold, each from its own address.
fn flood(names: u32) {
    let attack = GuessingAttack::begin();
    attack.log_in("alice", 7).expect("free");
    for number in 0..names {
        let guess = attack.guess(&format!("name {number}"), 100 + number);
        guess.expect("free");
    }
    let tables = attack.throttle.lock();
    assert_eq!(tables.pairs.0.len(), MAX_ENTRIES);
    assert_eq!(tables.blocks.0.len(), MAX_ENTRIES);
    assert_eq!(tables.accounts.0.len(), MAX_ENTRIES);
    assert_eq!(
        tables.trusted.len(),
        1,
        "only a login makes an address trusted"
    );
}

#[test]
fn memory_is_bounded_for_many_names_from_many_addresses() {
    flood(25_000);
}

#[test]
#[ignore = "takes a minute where nothing is optimised"]
fn memory_is_bounded_for_a_million_names() {
    flood(1_000_000);
}

#[test]
fn memory_of_successful_logins_is_bounded() {
    let attack = GuessingAttack::begin();
    for from in 0..15_000 {
        attack.log_in("alice", from).expect("never refused");
    }
    assert_eq!(attack.throttle.lock().trusted.len(), MAX_ENTRIES);
}

#[test]
fn an_address_cannot_evict_the_record_of_its_own_failures() {
    let attack = GuessingAttack::begin();
    for _ in 0..5 {
        attack.guess("alice", 1).expect("free");
    }
    for number in 0..20_000 {
        let _ = attack.guess(&format!("name {number}"), 1);
    }
    assert!(attack.guess("alice", 1).is_err());
    assert!(attack.throttle.lock().pairs.0.len() <= 20);
}

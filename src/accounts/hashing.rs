//! Password hashing: argon2id (RFC 9106), a bounded number at once, each on a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{Semaphore, oneshot};

use crate::accounts::AccountsError;
use crate::protocol::Secret;

/// The longest password, in bytes. Longer ones cost nothing but the time to refuse them.
pub(super) const LONGEST_PASSWORD: usize = 1024;

/// Slots unless told otherwise.
const DEFAULT_SLOTS: usize = 2;

/// What one password costs to hash, to haul and to who guesses it. The default is what OWASP
/// recommends for argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashingCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
}

impl HashingCost {
    /// The least that argon2 knows. It protects nothing; tests use it to be quick.
    pub const LEAST: Self = Self {
        memory_kib: Params::MIN_M_COST,
        passes: Params::MIN_T_COST,
    };
}

impl Default for HashingCost {
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
        }
    }
}

/// Hashes and checks passwords in its slots. Clones share the slots.
#[derive(Debug, Clone)]
pub(super) struct Hashing {
    slots: Arc<Semaphore>,
    cost: HashingCost,
    workspaces: Workspaces,
}

/// The memory that checking works in, kept for the next one: never more than one a slot. Given
/// back to the allocator, so large a block would make it keep everything else as well.
#[derive(Debug, Clone, Default)]
struct Workspaces(Arc<Mutex<Vec<Vec<Block>>>>);

impl Workspaces {
    fn with<T>(&self, length: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let kept = self.lock().pop();
        let mut workspace = kept.unwrap_or_default();
        if workspace.len() < length {
            workspace.resize(length, Block::default());
        }
        let result = work(&mut workspace[..length]);
        // What is in it now was made of a password.
        workspace[..length].fill(Block::new());
        self.lock().push(workspace);
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(DEFAULT_SLOTS)),
            cost: HashingCost::default(),
            workspaces: Workspaces::default(),
        }
    }
}

impl Hashing {
    pub(super) fn with_slots(self, slots: usize) -> Self {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            ..self
        }
    }

    pub(super) fn with_cost(self, cost: HashingCost) -> Self {
        Self { cost, ..self }
    }

    /// The PHC string of a new password.
    pub(super) async fn hash(&self, password: &Secret) -> Result<String, AccountsError> {
        check(password)?;
        let password = password.clone();
        let hash = self.in_slot(move |argon2| argon2.hash_password(password.expose().as_bytes()));
        Ok(hash.await?.map_err(failed)?.to_string())
    }

    /// Whether `password` is the one that `hash` was made of. Without a hash it is not, and takes
    /// as long to say so.
    pub(super) async fn verify(
        &self,
        password: &str,
        hash: Option<String>,
    ) -> Result<bool, AccountsError> {
        if password.len() > LONGEST_PASSWORD {
            return Ok(false);
        }
        let password = Secret::new(password.to_owned());
        let workspaces = self.workspaces.clone();
        self.in_slot(move |argon2| {
            let password = password.expose().as_bytes();
            let Some(hash) = hash else {
                let nobody = argon2.params().clone();
                compute(&workspaces, nobody, password, &NOBODYS_SALT, OUTPUT)?;
                return Ok(false);
            };
            let (params, salt, expected) = parse(&hash)?;
            let length = expected.as_bytes().len();
            let actual = compute(&workspaces, params, password, &salt, length)?;
            // Compared in constant time.
            Ok(actual == expected)
        })
        .await?
    }

    /// Runs `work` on a thread of its own once a slot is free: it waits for no disk, and what waits
    /// for a disk does not wait for it. The slot is held until `work` has ended, even where nobody
    /// waits for it any more.
    async fn in_slot<T: Send + 'static>(
        &self,
        work: impl FnOnce(Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, AccountsError> {
        let params =
            Params::new(self.cost.memory_kib, self.cost.passes, 1, None).map_err(failed)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(failed)?;
        let (sender, hashed) = oneshot::channel();
        let hashing = move || {
            let result = work(argon2);
            drop(slot);
            // Nobody may wait for it any more.
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new().name("argon2".into());
        thread.spawn(hashing).map_err(failed)?;
        hashed.await.map_err(failed)
    }
}

/// Refuses what can be no new password.
pub(super) fn check(password: &Secret) -> Result<(), AccountsError> {
    match password.expose().len() {
        0 => Err(AccountsError::EmptyPassword),
        1..=LONGEST_PASSWORD => Ok(()),
        _ => Err(AccountsError::PasswordTooLong),
    }
}

/// What is hashed with a password of nobody's.
const NOBODYS_SALT: [u8; 16] = [0; 16];

/// Bytes of a hash.
const OUTPUT: usize = Params::DEFAULT_OUTPUT_LEN;

/// Cost, salt and result of a stored hash.
fn parse(hash: &str) -> Result<(Params, Vec<u8>, Output), AccountsError> {
    let damaged = |reason: &dyn std::fmt::Display| AccountsError::Hashing {
        reason: format!("the password hash in haul.db is damaged: {reason}"),
    };
    let hash = PasswordHash::new(hash).map_err(|error| damaged(&error))?;
    if hash.algorithm != Algorithm::Argon2id.ident() {
        let other = format!("it is of {}, not of argon2id", hash.algorithm);
        return Err(damaged(&other));
    }
    if hash.version != Some(Version::V0x13.into()) {
        return Err(damaged(&"it is not of version 19 of argon2id"));
    }
    let params = Params::try_from(&hash).map_err(|error| damaged(&error))?;
    let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
        return Err(damaged(&"it has no salt or no result"));
    };
    Ok((params, salt.to_vec(), output))
}

fn compute(
    workspaces: &Workspaces,
    params: Params,
    password: &[u8],
    salt: &[u8],
    length: usize,
) -> Result<Output, AccountsError> {
    let blocks = params.block_count();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut output = vec![0; length];
    workspaces
        .with(blocks, |workspace| {
            argon2.hash_password_into_with_memory(password, salt, &mut output, workspace)
        })
        .map_err(failed)?;
    Output::new(&output).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> AccountsError {
    AccountsError::Hashing {
        reason: error.to_string(),
    }
}

#[cfg(test)]
impl Hashing {
    /// Makes every attempt to hash fail, so that a test sees which paths attempt it.
    pub(super) fn close(&self) {
        self.slots.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn quick() -> Hashing {
        Hashing::default().with_cost(HashingCost::LEAST)
    }

    #[tokio::test]
    async fn the_default_cost_is_what_owasp_recommends() {
        let password = Secret::new("hunter2".into());
        let hash = Hashing::default().hash(&password).await.expect("hashed");
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
    }

    #[tokio::test]
    async fn only_the_right_password_is_verified() {
        let hashing = quick();
        let hash = hashing
            .hash(&Secret::new("hunter2".into()))
            .await
            .expect("hashed");
        for (password, right) in [("hunter2", true), ("hunter3", false), ("", false)] {
            let verified = hashing.verify(password, Some(hash.clone())).await;
            assert_eq!(verified.expect("checked"), right, "{password}");
            let verified = hashing.verify(password, None).await;
            assert!(!verified.expect("checked"), "{password}");
        }
    }

    #[tokio::test]
    async fn a_password_that_is_empty_or_over_1024_bytes_is_never_hashed() {
        let hashing = quick();
        hashing.close();
        let long = Secret::new("x".repeat(1025));
        let error = hashing.hash(&long).await.expect_err("too long");
        assert!(matches!(error, AccountsError::PasswordTooLong), "{error}");
        assert!(
            !hashing
                .verify(long.expose(), None)
                .await
                .expect("no hashing")
        );
        let error = hashing.hash(&Secret::new(String::new())).await;
        assert!(matches!(error, Err(AccountsError::EmptyPassword)));
        let longest = Secret::new("x".repeat(1024));
        let error = hashing.hash(&longest).await.expect_err("closed");
        assert!(matches!(error, AccountsError::Hashing { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_hash_is_an_error_and_no_wrong_password() {
        let error = quick().verify("hunter2", Some("plain".into())).await;
        let message = error.expect_err("damaged").to_string();
        assert!(message.contains("haul.db is damaged"), "{message}");
    }

    #[tokio::test]
    async fn a_hash_of_another_kind_or_version_is_damaged() {
        let hashing = quick();
        let password = Secret::new("hunter2".into());
        let hash = hashing.hash(&password).await.expect("hashed");
        for (right, wrong) in [
            ("$argon2id$", "$argon2i$"),
            ("$argon2id$", "$scrypt$"),
            ("$v=19$", "$v=16$"),
            ("$v=19$", "$"),
        ] {
            let other = hash.replace(right, wrong);
            assert_ne!(other, hash);
            let error = hashing.verify("hunter2", Some(other)).await;
            let message = error.expect_err("damaged").to_string();
            assert!(message.contains("haul.db is damaged"), "{message}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_password_stays_in_the_memory_that_is_kept() {
        let hashing = quick();
        hashing.verify("hunter2", None).await.expect("checked");
        let kept = hashing.workspaces.lock();
        assert_eq!(kept.len(), 1);
        let words = kept[0].iter().flat_map(AsRef::as_ref);
        assert!(words.clone().count() > 0);
        assert!(words.into_iter().all(|word| *word == 0));
    }

    #[tokio::test]
    async fn no_more_passwords_are_hashed_at_once_than_there_are_slots() {
        let hashing = quick().with_slots(2);
        let running = Arc::new(AtomicUsize::new(0));
        // Both slots must be taken at once for either to get past the barrier.
        let both = Arc::new(std::sync::Barrier::new(2));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (hashing, running) = (hashing.clone(), Arc::clone(&running));
                let both = Arc::clone(&both);
                tokio::spawn(async move {
                    let work = hashing.in_slot(move |_| {
                        let others = running.fetch_add(1, Ordering::SeqCst);
                        both.wait();
                        running.fetch_sub(1, Ordering::SeqCst);
                        both.wait();
                        others
                    });
                    work.await.expect("worked")
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.expect("no panic") < 2);
        }
    }

    #[test]
    fn a_password_is_checked_while_every_blocking_thread_of_the_runtime_is_taken() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let stuck = runtime.spawn_blocking(move || ended.recv());
        let verified = runtime.block_on(quick().verify("hunter2", None));
        assert!(!verified.expect("checked"));
        assert!(!stuck.is_finished());
        drop(end);
    }

    #[tokio::test]
    async fn a_slot_is_held_until_the_hashing_ends_even_if_nobody_waits() {
        let hashing = quick().with_slots(1);
        let (begun, has_begun) = oneshot::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let task = tokio::spawn({
            let hashing = hashing.clone();
            async move {
                let work = move |_| {
                    begun.send(()).expect("the test waits");
                    ended.recv().expect("the test ends it");
                };
                hashing.in_slot(work).await
            }
        });
        has_begun.await.expect("begun");
        task.abort();
        assert!(task.await.expect_err("aborted").is_cancelled());
        assert_eq!(hashing.slots.available_permits(), 0);
        end.send(()).expect("it still runs");
        assert!(
            !hashing
                .verify("x", None)
                .await
                .expect("the slot is free again")
        );
    }
}

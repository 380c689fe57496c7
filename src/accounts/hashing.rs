//! Password hashing with argon2id (RFC 9106): a bounded number at once, each on its own thread.

use std::sync::Arc;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, oneshot};

use crate::accounts::error::{AccountsError, MAX_PASSWORD_BYTES};
use crate::protocol::Secret;

/// The default number of slots.
const DEFAULT_SLOTS: usize = 2;

/// The cost of hashing one password, for the server as for an attacker. The default is the OWASP
/// recommendation for argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashingCost {
    /// The memory in KiB.
    pub memory_kib: u32,
    /// The number of passes over that memory.
    pub passes: u32,
}

impl HashingCost {
    /// The minimum of argon2. It protects nothing; tests use it to be fast.
    pub const MIN: Self = Self {
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

/// Hashes and verifies passwords in a bounded number of slots. Clones share the slots.
#[derive(Debug, Clone)]
pub(crate) struct PasswordHashing {
    slots: Arc<Semaphore>,
    cost: HashingCost,
    workspaces: HashingWorkspaces,
}

/// The working memory of verifications, kept for reuse: at most one block list per slot. Freeing
/// such large blocks would make the allocator retain far more memory.
#[derive(Debug, Clone, Default)]
struct HashingWorkspaces(Arc<Mutex<Vec<Vec<Block>>>>);

impl HashingWorkspaces {
    fn with<T>(&self, length: usize, work: impl FnOnce(&mut [Block]) -> T) -> T {
        let kept = self.lock().pop();
        let mut workspace = kept.unwrap_or_default();
        if workspace.len() < length {
            workspace.resize(length, Block::default());
        }
        let result = work(&mut workspace[..length]);
        // The content was derived from a password.
        workspace[..length].fill(Block::new());
        self.lock().push(workspace);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock()
    }
}

impl Default for PasswordHashing {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(DEFAULT_SLOTS)),
            cost: HashingCost::default(),
            workspaces: HashingWorkspaces::default(),
        }
    }
}

impl PasswordHashing {
    pub(crate) fn with_slots(self, slots: usize) -> Self {
        let slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            ..self
        }
    }

    pub(crate) fn with_cost(self, cost: HashingCost) -> Self {
        Self { cost, ..self }
    }

    /// Hashes a new password, and returns the PHC string.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String, AccountsError> {
        check_new_password(password, 0)?;
        let password = password.clone();
        let hash =
            self.run_in_slot(move |argon2| argon2.hash_password(password.expose().as_bytes()));
        Ok(hash.await?.map_err(hashing_error)?.to_string())
    }

    /// Whether `password` matches `hash`. Without a hash the result is `false`, after the same time.
    pub(crate) async fn verify(
        &self,
        password: &str,
        hash: Option<String>,
    ) -> Result<bool, AccountsError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(false);
        }
        let password = Secret::new(password.to_owned());
        let workspaces = self.workspaces.clone();
        self.run_in_slot(move |argon2| {
            let password = password.expose().as_bytes();
            let Some(hash) = hash else {
                let nobody = argon2.params().clone();
                compute(
                    &workspaces,
                    nobody,
                    password,
                    &UNKNOWN_USER_SALT,
                    HASH_BYTES,
                )?;
                return Ok(false);
            };
            let (params, salt, expected) = parse(&hash)?;
            let length = expected.as_bytes().len();
            let actual = compute(&workspaces, params, password, &salt, length)?;
            // The comparison takes constant time.
            Ok(actual == expected)
        })
        .await?
    }

    /// Runs `work` on its own thread once a slot is free, so that it does not delay work that waits
    /// for the disk. If the future is dropped, the slot stays taken until `work` has ended.
    async fn run_in_slot<T: Send + 'static>(
        &self,
        work: impl FnOnce(Argon2<'static>) -> T + Send + 'static,
    ) -> Result<T, AccountsError> {
        let params =
            Params::new(self.cost.memory_kib, self.cost.passes, 1, None).map_err(hashing_error)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(hashing_error)?;
        let (sender, hashed) = oneshot::channel();
        let hashing = move || {
            let result = work(argon2);
            drop(slot);
            // The future may have been dropped.
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new().name("argon2".into());
        thread.spawn(hashing).map_err(hashing_error)?;
        hashed.await.map_err(hashing_error)
    }
}

/// Rejects a new password that is empty, too long, or has fewer than `min_chars` characters.
///
/// # Errors
/// [`AccountsError::EmptyPassword`], [`AccountsError::PasswordTooLong`],
/// [`AccountsError::PasswordTooShort`].
pub fn check_new_password(password: &Secret, min_chars: usize) -> Result<(), AccountsError> {
    let password = password.expose();
    match password.len() {
        0 => Err(AccountsError::EmptyPassword),
        1..=MAX_PASSWORD_BYTES if password.chars().count() < min_chars => {
            Err(AccountsError::PasswordTooShort(min_chars))
        }
        1..=MAX_PASSWORD_BYTES => Ok(()),
        _ => Err(AccountsError::PasswordTooLong),
    }
}

/// The salt for the password of an unknown user.
const UNKNOWN_USER_SALT: [u8; 16] = [0; 16];

/// The length of a hash in bytes.
const HASH_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;

/// The cost, salt and output of a stored hash.
fn parse(hash: &str) -> Result<(Params, Vec<u8>, Output), AccountsError> {
    let damaged = |reason: &dyn std::fmt::Display| AccountsError::Hashing {
        reason: format!("the password hash in haul.db is damaged: {reason}"),
    };
    let hash = PasswordHash::new(hash).map_err(|error| damaged(&error))?;
    if hash.algorithm != Algorithm::Argon2id.ident() {
        let other = format!("its algorithm is {}, not argon2id", hash.algorithm);
        return Err(damaged(&other));
    }
    if hash.version != Some(Version::V0x13.into()) {
        return Err(damaged(&"its argon2id version is not 19"));
    }
    let params = Params::try_from(&hash).map_err(|error| damaged(&error))?;
    let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
        return Err(damaged(&"it has no salt or no output"));
    };
    Ok((params, salt.to_vec(), output))
}

fn compute(
    workspaces: &HashingWorkspaces,
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
        .map_err(hashing_error)?;
    Output::new(&output).map_err(hashing_error)
}

fn hashing_error(error: impl std::fmt::Display) -> AccountsError {
    AccountsError::Hashing {
        reason: error.to_string(),
    }
}

#[cfg(test)]
impl PasswordHashing {
    /// Makes every attempt to hash fail, so that a test sees which paths attempt it.
    pub(crate) fn close(&self) {
        self.slots.close();
    }
}

#[cfg(test)]
mod tests;

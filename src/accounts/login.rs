//! Logins by password and by token, and the status of credentials while a session lasts.
//!
//! A failed login does not reveal its cause, neither by its error nor by the time it takes.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use tracing::warn;

use crate::accounts::account::{Account, Accounts};
use crate::accounts::database;
use crate::accounts::database::{read_error, write_error};
use crate::accounts::error::AccountsError;
use crate::accounts::name::UserName;
use crate::accounts::{folders, hashing, tokens};
use crate::protocol::Secret;

/// The credential that a session was opened with. The session ends when it becomes invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The number of the account.
    pub account: i64,
    /// The number of the token; `None` for a password or a certificate.
    pub token: Option<i64>,
}

/// The present status of a valid credential.
#[derive(Debug, Clone)]
pub struct CredentialStatus {
    /// The present account.
    pub account: Arc<Account>,
    /// When the token expires, if ever.
    pub expires: Option<Timestamp>,
}

impl Accounts {
    /// Logs a user in with a password.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`], or [`AccountsError::Database`].
    pub async fn log_in_with_password(
        &self,
        user: &str,
        password: &str,
    ) -> Result<Account, AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT id, name, password FROM users WHERE name = ?";
        let found = sqlx::query_as::<_, (i64, String, String)>(select).bind(user);
        let found = found
            .fetch_optional(&mut *transaction)
            .await
            .map_err(read_error)?;
        // Hashing is slow, and must not hold one of the few connections.
        transaction.commit().await.map_err(read_error)?;
        let (user, hash) = match found {
            Some((id, name, hash)) => (Some((id, name)), Some(hash)),
            None => (None, None),
        };
        let is_valid = self.hashing.verify(password, hash).await?;
        match user {
            Some((id, name)) if is_valid => self.account_of(id, name).await,
            _ => Err(AccountsError::LoginFailed),
        }
    }

    /// Changes the password of a user who knows the old one. Tokens and sessions stay valid.
    ///
    /// # Errors
    /// [`AccountsError::WrongPassword`], also if the password changed or the user was removed
    /// meanwhile; [`AccountsError::EmptyPassword`] and [`AccountsError::PasswordTooLong`] for `new`;
    /// or [`AccountsError::Database`].
    pub async fn change_password(
        &self,
        account: &Account,
        old: &Secret,
        new: &Secret,
    ) -> Result<(), AccountsError> {
        hashing::check_new_password(new, 0)?;
        let mut transaction = self.database.read().await?;
        let select = "SELECT password FROM users WHERE id = ? AND NOT disabled";
        let found: Option<String> = sqlx::query_scalar(select)
            .bind(account.id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        if !self.hashing.verify(old.expose(), found.clone()).await? {
            return Err(AccountsError::WrongPassword);
        }
        let hash = self.hashing.hash(new).await?;
        let mut transaction = self.database.write().await?;
        let update = "UPDATE users SET password = ? WHERE id = ? AND password = ? AND NOT disabled";
        let updated = sqlx::query(update)
            .bind(hash)
            .bind(account.id)
            .bind(found)
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::WrongPassword);
        }
        transaction.commit().await.map_err(write_error)?;
        if let Err(error) = self.forget_first_password(&account.name).await {
            // The user who changed the password cannot fix this; an operator can.
            warn!(name: "first_password_stays", %error, "cannot remove the file of a password that is no longer valid");
        }
        Ok(())
    }

    /// Logs a user in with a token. Returns the account and the token's number.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`], or [`AccountsError::Database`].
    pub async fn log_in_with_token(&self, token: &str) -> Result<(Account, i64), AccountsError> {
        self.log_in_with_token_at(token, Timestamp::now()).await
    }

    async fn log_in_with_token_at(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<(Account, i64), AccountsError> {
        let mut transaction = self.database.read().await?;
        let select = "SELECT users.id, users.name, tokens.id \
                      FROM tokens JOIN users ON users.id = tokens.user \
                      WHERE tokens.hash = ? AND (tokens.expires IS NULL OR tokens.expires > ?)";
        let found = sqlx::query_as::<_, (i64, String, i64)>(select)
            .bind(tokens::token_hash(token))
            .bind(now.as_second())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        match found {
            Some((id, name, token)) => Ok((self.account_of(id, name).await?, token)),
            None => Err(AccountsError::LoginFailed),
        }
    }

    /// The present status of credentials, in their order and all at one moment; `None` for those that
    /// are no longer valid.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn credential_statuses(
        &self,
        credentials: &[Credential],
    ) -> Result<Vec<Option<CredentialStatus>>, AccountsError> {
        self.credential_statuses_at(credentials, Timestamp::now())
            .await
    }

    async fn credential_statuses_at(
        &self,
        credentials: &[Credential],
        now: Timestamp,
    ) -> Result<Vec<Option<CredentialStatus>>, AccountsError> {
        let mut transaction = self.database.read_reserved().await?;
        let users: Vec<_> = credentials.iter().map(|one| one.account).collect();
        let tokens: Vec<_> = credentials.iter().filter_map(|one| one.token).collect();
        let accounts = accounts_of(&mut transaction, &users)
            .await
            .map_err(read_error)?;
        let tokens = tokens::valid_tokens(&mut transaction, &tokens, now)
            .await
            .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        let current = credentials.iter().map(|credential| {
            let account = Arc::clone(accounts.get(&credential.account)?);
            let expires = match credential.token {
                None => None,
                Some(token) => *tokens.get(&(credential.account, token))?,
            };
            Some(CredentialStatus { account, expires })
        });
        Ok(current.collect())
    }

    async fn account_of(&self, id: i64, name: String) -> Result<Account, AccountsError> {
        let name = database::parse_name(name).map_err(read_error)?;
        let account = self.account(&name).await?;
        let same = account.filter(|account| account.id == id);
        same.ok_or(AccountsError::LoginFailed)
    }

    /// The present account of a user; `None` if it was removed or disabled. A session may continue
    /// only while the `id` is the one that it logged in with.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn account(&self, user: &UserName) -> Result<Option<Account>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let found: Option<i64> = sqlx::query_scalar("SELECT id FROM users WHERE name = ?")
            .bind(user.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(read_error)?;
        let account = match found {
            Some(id) => accounts_of(&mut transaction, &[id])
                .await
                .map_err(read_error)?
                .remove(&id)
                .map(Arc::unwrap_or_clone),
            None => None,
        };
        transaction.commit().await.map_err(read_error)?;
        Ok(account)
    }
}

/// The enabled accounts with these numbers, by number.
async fn accounts_of(
    connection: &mut SqliteConnection,
    ids: &[i64],
) -> Result<HashMap<i64, Arc<Account>>, sqlx::Error> {
    let ids = database::json_list(ids)?;
    let select = "SELECT id, name, admin, bytes, files FROM users \
                  WHERE NOT disabled AND id IN (SELECT value FROM json_each(?))";
    let rows = sqlx::query_as::<_, (i64, String, bool, Option<i64>, Option<i64>)>(select)
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
    let mut folders = folders::grants(connection, &ids).await?;
    let mut accounts = HashMap::with_capacity(rows.len());
    for (id, name, admin, bytes, files) in rows {
        let account = Account {
            id,
            name: database::parse_name(name)?,
            admin,
            limits: database::to_limits(bytes, files)?,
            folders: folders.remove(&id).unwrap_or_default(),
        };
        accounts.insert(id, Arc::new(account));
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests;

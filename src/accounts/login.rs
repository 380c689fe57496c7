//! Logging in. Who may not is told nothing about why, and waits as long to be told.
//!
//! What a login was good for is asked again by its credential, for as long as a session lasts.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;
use tracing::warn;

use crate::accounts::database;
use crate::accounts::database::{changing, reading};
use crate::accounts::{Account, Accounts, AccountsError, UserName, folders, hashing, tokens};
use crate::protocol::Secret;

/// What a session was opened by, and lasts no longer than.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The account's number.
    pub account: i64,
    /// The token's number; absent for a password or a certificate.
    pub token: Option<i64>,
}

/// What a credential is good for now.
#[derive(Debug, Clone)]
pub struct CredentialStatus {
    /// The account as it is now.
    pub account: Arc<Account>,
    /// When the token stops working, if ever.
    pub expires: Option<Timestamp>,
}

impl Accounts {
    /// The account of a user who knows the password.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`], or what the database says.
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
            .map_err(reading)?;
        // Hashing takes its time, and there are few connections.
        transaction.commit().await.map_err(reading)?;
        let (user, hash) = match found {
            Some((id, name, hash)) => (Some((id, name)), Some(hash)),
            None => (None, None),
        };
        let right = self.hashing.verify(password, hash).await?;
        match user {
            Some((id, name)) if right => self.account_of(id, name).await,
            _ => Err(AccountsError::LoginFailed),
        }
    }

    /// Gives a user another password, if `old` is the one so far. Its tokens and sessions stay.
    ///
    /// # Errors
    /// [`AccountsError::WrongPassword`], also where it was changed or the user removed meanwhile;
    /// [`AccountsError::EmptyPassword`] and [`AccountsError::PasswordTooLong`] for `new`; or what
    /// the database says.
    pub async fn change_password(
        &self,
        account: &Account,
        old: &Secret,
        new: &Secret,
    ) -> Result<(), AccountsError> {
        hashing::check(new)?;
        let mut transaction = self.database.read().await?;
        let select = "SELECT password FROM users WHERE id = ? AND NOT disabled";
        let found: Option<String> = sqlx::query_scalar(select)
            .bind(account.id)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
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
            .map_err(changing)?;
        if updated.rows_affected() == 0 {
            return Err(AccountsError::WrongPassword);
        }
        transaction.commit().await.map_err(changing)?;
        if let Err(error) = self.forget_first_password(&account.name).await {
            // Who changed it can not help it.
            warn!(name: "first_password_stays", %error, "a password that is no longer right stays in its file");
        }
        Ok(())
    }

    /// The account of the user whom a token was made for, and the token's number.
    ///
    /// # Errors
    /// [`AccountsError::LoginFailed`], or what the database says.
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
            .bind(tokens::hash(token))
            .bind(now.as_second())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
        match found {
            Some((id, name, token)) => Ok((self.account_of(id, name).await?, token)),
            None => Err(AccountsError::LoginFailed),
        }
    }

    /// What the credentials are good for now, each in its place and all as of one moment; `None` for
    /// those that are good for nothing any more.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn current(
        &self,
        credentials: &[Credential],
    ) -> Result<Vec<Option<CredentialStatus>>, AccountsError> {
        self.current_at(credentials, Timestamp::now()).await
    }

    async fn current_at(
        &self,
        credentials: &[Credential],
        now: Timestamp,
    ) -> Result<Vec<Option<CredentialStatus>>, AccountsError> {
        let mut transaction = self.database.read_apart().await?;
        let users: Vec<_> = credentials.iter().map(|one| one.account).collect();
        let tokens: Vec<_> = credentials.iter().filter_map(|one| one.token).collect();
        let accounts = accounts_of(&mut transaction, &users)
            .await
            .map_err(reading)?;
        let tokens = tokens::valid(&mut transaction, &tokens, now)
            .await
            .map_err(reading)?;
        transaction.commit().await.map_err(reading)?;
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
        let name = database::name(name).map_err(reading)?;
        let account = self.account(&name).await?;
        let same = account.filter(|account| account.id == id);
        same.ok_or(AccountsError::LoginFailed)
    }

    /// The account of a user as it is now; `None` if it was removed or disabled. A session goes
    /// on only while the `id` is still the one it logged in with.
    ///
    /// # Errors
    /// [`AccountsError::Database`].
    pub async fn account(&self, user: &UserName) -> Result<Option<Account>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let found: Option<i64> = sqlx::query_scalar("SELECT id FROM users WHERE name = ?")
            .bind(user.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(reading)?;
        let account = match found {
            Some(id) => accounts_of(&mut transaction, &[id])
                .await
                .map_err(reading)?
                .remove(&id)
                .map(Arc::unwrap_or_clone),
            None => None,
        };
        transaction.commit().await.map_err(reading)?;
        Ok(account)
    }
}

/// The accounts of these numbers by number, but for those that are disabled.
async fn accounts_of(
    connection: &mut SqliteConnection,
    ids: &[i64],
) -> Result<HashMap<i64, Arc<Account>>, sqlx::Error> {
    let ids = database::json(ids)?;
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
            name: database::name(name)?,
            admin,
            limits: database::limits(bytes, files)?,
            folders: folders.remove(&id).unwrap_or_default(),
        };
        accounts.insert(id, Arc::new(account));
    }
    Ok(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::UserChange;
    use crate::accounts::tests::{accounts, add, reopen, secret, user};

    async fn refusal(accounts: &Accounts, user: &str, password: &str) -> String {
        let error = accounts.log_in_with_password(user, password).await;
        error.expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn the_right_password_logs_in_and_every_other_fails_alike() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let account = accounts
            .log_in_with_password("alice", "hunter2")
            .await
            .expect("right");
        assert_eq!(account.name, user("alice"));
        let wrong = refusal(&accounts, "alice", "hunter3").await;
        for name in ["bob", "Alice", "", "../alice", "alice\0", "alice' OR ''='"] {
            assert_eq!(refusal(&accounts, name, "hunter2").await, wrong, "{name:?}");
        }
        assert_eq!(refusal(&accounts, "alice", "").await, wrong);
    }

    #[tokio::test]
    async fn an_unknown_user_costs_a_hash_like_a_wrong_password() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        accounts.hashing.close();
        for (name, password) in [
            ("alice", "hunter3"),
            ("bob", "hunter3"),
            ("../x", "hunter3"),
        ] {
            let message = refusal(&accounts, name, password).await;
            assert!(
                message.starts_with("can not check passwords"),
                "{name}: {message}"
            );
        }
    }

    #[tokio::test]
    async fn a_password_over_1024_bytes_is_refused_before_any_hashing() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let wrong = refusal(&accounts, "alice", "hunter3").await;
        accounts.hashing.close();
        let long = "x".repeat(1025);
        for name in ["alice", "bob"] {
            assert_eq!(refusal(&accounts, name, &long).await, wrong);
        }
    }

    #[tokio::test]
    async fn a_new_password_replaces_the_old_one_and_tokens_stay() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let token = accounts
            .add_token(&user("alice"), "", None)
            .await
            .expect("made");
        accounts
            .set_password(&user("alice"), &secret("other"))
            .await
            .expect("set");
        refusal(&accounts, "alice", "hunter2").await;
        accounts
            .log_in_with_password("alice", "other")
            .await
            .expect("right");
        accounts
            .log_in_with_token(token.expose())
            .await
            .expect("stays");
    }

    #[tokio::test]
    async fn a_removed_or_disabled_user_can_not_log_in() {
        let (directory, accounts) = accounts().await;
        let alice = user("alice");
        add(&accounts, "alice").await;
        let token = accounts.add_token(&alice, "", None).await.expect("made");
        let wrong = refusal(&accounts, "alice", "hunter3").await;
        let disable = |disabled| UserChange {
            disabled: Some(disabled),
            ..UserChange::default()
        };
        accounts.set_user(&alice, disable(true)).await.expect("set");
        assert_eq!(refusal(&accounts, "alice", "hunter2").await, wrong);
        assert!(accounts.log_in_with_token(token.expose()).await.is_err());
        assert_eq!(accounts.account(&alice).await.expect("readable"), None);

        accounts
            .set_user(&alice, disable(false))
            .await
            .expect("set");
        accounts
            .log_in_with_token(token.expose())
            .await
            .expect("enabled again");
        let other = reopen(&directory).await;
        other.remove_user(&alice).await.expect("removed");
        assert_eq!(refusal(&accounts, "alice", "hunter2").await, wrong);
        add(&accounts, "alice").await;
        assert!(accounts.log_in_with_token(token.expose()).await.is_err());
    }

    #[tokio::test]
    async fn a_token_logs_in_until_it_expires_or_is_removed() {
        let (_directory, accounts) = accounts().await;
        let alice = user("alice");
        add(&accounts, "alice").await;
        let expires = Timestamp::from_second(2_000_000_000).expect("a time");
        let token = accounts
            .add_token(&alice, "", Some(expires))
            .await
            .expect("made");
        let second = jiff::SignedDuration::from_secs(1);
        let account = accounts
            .log_in_with_token_at(token.expose(), expires - second)
            .await;
        assert_eq!(account.expect("not yet").0.name, alice);
        let error = accounts.log_in_with_token_at(token.expose(), expires).await;
        assert!(matches!(error, Err(AccountsError::LoginFailed)));

        let token = accounts.add_token(&alice, "", None).await.expect("made");
        accounts
            .log_in_with_token(token.expose())
            .await
            .expect("good");
        let upper = token.expose().to_uppercase();
        for wrong in ["", "haul_", &token.expose()[1..], &upper] {
            assert!(accounts.log_in_with_token(wrong).await.is_err(), "{wrong}");
        }
        let tokens = accounts.tokens(&alice).await.expect("readable");
        accounts
            .remove_token(&alice, tokens[1].id)
            .await
            .expect("removed");
        assert!(accounts.log_in_with_token(token.expose()).await.is_err());
    }

    #[tokio::test]
    async fn a_credential_is_good_as_long_as_its_account_and_its_token_are() {
        let (_directory, accounts) = accounts().await;
        let alice = user("alice");
        add(&accounts, "alice").await;
        let expires = Timestamp::from_second(2_000_000_000).expect("a time");
        for expires in [None, Some(expires)] {
            accounts.add_token(&alice, "", expires).await.expect("made");
        }
        let account = accounts
            .account(&alice)
            .await
            .expect("readable")
            .expect("there");
        let tokens = accounts.tokens(&alice).await.expect("readable");
        let of = |token| Credential {
            account: account.id,
            token,
        };
        let credentials = [of(None), of(Some(tokens[0].id)), of(Some(tokens[1].id))];
        let good_at = async |now| {
            let current = accounts
                .current_at(&credentials, now)
                .await
                .expect("readable");
            current.iter().map(Option::is_some).collect::<Vec<_>>()
        };
        let second = jiff::SignedDuration::from_secs(1);
        assert_eq!(good_at(expires - second).await, [true, true, true]);
        assert_eq!(good_at(expires).await, [true, true, false]);
        let current = accounts.current(&credentials).await.expect("readable");
        let last = current[2].as_ref().expect("good");
        assert_eq!((&*last.account, last.expires), (&account, Some(expires)));
        accounts
            .remove_token(&alice, tokens[0].id)
            .await
            .expect("removed");
        assert_eq!(good_at(expires - second).await, [true, false, true]);
        accounts.remove_user(&alice).await.expect("removed");
        add(&accounts, "alice").await;
        assert_eq!(good_at(expires - second).await, [false, false, false]);
    }
}

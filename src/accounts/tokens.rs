//! Tokens: generated passwords for programs, which can be revoked one by one.

use std::collections::HashMap;

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::SqliteConnection;

use crate::accounts::account::Accounts;
use crate::accounts::database;
use crate::accounts::database::{read_error, write_error};
use crate::accounts::error::AccountsError;
use crate::accounts::name::UserName;
use crate::accounts::users;
use crate::protocol::Secret;

/// A token as its owner and administrators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The number of the token, by which it is removed.
    pub id: i64,
    /// The purpose of the token.
    pub label: String,
    /// When the token was generated.
    pub created: Timestamp,
    /// When the token expires, if ever.
    pub expires: Option<Timestamp>,
}

impl Accounts {
    /// Generates a token: `haul_` and 52 letters and digits. It cannot be shown again, because only
    /// its hash is stored.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`] or [`AccountsError::Database`].
    pub async fn add_token(
        &self,
        user: &UserName,
        label: &str,
        expires: Option<Timestamp>,
    ) -> Result<Secret, AccountsError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| AccountsError::NoRandomness {
            reason: error.to_string(),
        })?;
        let token = format!("haul_{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase());
        let mut transaction = self.database.write().await?;
        let insert = "INSERT INTO tokens (user, hash, label, created, expires) \
                      VALUES (?, ?, ?, ?, ?)";
        sqlx::query(insert)
            .bind(users::id_of(&mut transaction, user).await?)
            .bind(token_hash(&token))
            .bind(label)
            .bind(Timestamp::now().as_second())
            .bind(expires.map(Timestamp::as_second))
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        transaction.commit().await.map_err(write_error)?;
        Ok(Secret::new(token))
    }

    /// The tokens of a user, the oldest first.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`] or [`AccountsError::Database`].
    pub async fn tokens(&self, user: &UserName) -> Result<Vec<Token>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let user = users::id_of(&mut transaction, user).await?;
        let select = "SELECT id, label, created, expires FROM tokens WHERE user = ? ORDER BY id";
        let tokens = sqlx::query(select).bind(user).try_map(|row| {
            let (id, label, created, expires) = <(_, _, _, Option<i64>)>::from_row(&row)?;
            Ok(Token {
                id,
                label,
                created: database::timestamp(created)?,
                expires: expires.map(database::timestamp).transpose()?,
            })
        });
        let tokens = tokens
            .fetch_all(&mut *transaction)
            .await
            .map_err(read_error)?;
        transaction.commit().await.map_err(read_error)?;
        Ok(tokens)
    }

    /// Removes a token. Its sessions end, and no login with it succeeds any more.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`], [`AccountsError::NoSuchToken`] or
    /// [`AccountsError::Database`].
    pub async fn remove_token(&self, user: &UserName, id: i64) -> Result<(), AccountsError> {
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM tokens WHERE user = ? AND id = ?")
            .bind(users::id_of(&mut transaction, user).await?)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchToken {
                user: user.clone(),
                id,
            });
        }
        transaction.commit().await.map_err(write_error)
    }
}

/// The expiry times of those tokens that are valid at `now`, by the numbers of the user and the
/// token.
pub(crate) async fn valid_tokens(
    connection: &mut SqliteConnection,
    tokens: &[i64],
    now: Timestamp,
) -> Result<HashMap<(i64, i64), Option<Timestamp>>, sqlx::Error> {
    let select = "SELECT user, id, expires FROM tokens \
                  WHERE id IN (SELECT value FROM json_each(?)) \
                  AND (expires IS NULL OR expires > ?)";
    let rows: Vec<(i64, i64, Option<i64>)> = sqlx::query_as(select)
        .bind(database::json_list(tokens)?)
        .bind(now.as_second())
        .fetch_all(connection)
        .await?;
    let valid = rows.into_iter().map(|(user, token, expires)| {
        let expires = expires.map(database::timestamp).transpose()?;
        Ok(((user, token), expires))
    });
    valid.collect()
}

/// The hash of a token, which is all that is stored of it.
pub(crate) fn token_hash(token: &str) -> Vec<u8> {
    blake3::hash(token.as_bytes()).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::tests::{accounts, add, user};

    #[tokio::test]
    async fn a_token_is_shown_once_and_only_its_hash_is_kept() {
        let (directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let token = accounts
            .add_token(&user("alice"), "backup", None)
            .await
            .expect("made");
        let other = accounts
            .add_token(&user("alice"), "backup", None)
            .await
            .expect("made");
        assert_ne!(token, other);
        let random = token.expose().strip_prefix("haul_").expect("its prefix");
        assert_eq!(random.len(), 52);
        let read = |name| std::fs::read(directory.path().join(name)).expect("a file");
        let kept = [read("haul.db"), read("haul.db-wal")].concat();
        let holds = |part: &[u8]| kept.windows(part.len()).any(|window| window == part);
        assert!(holds(&token_hash(token.expose())) && !holds(random.as_bytes()));
    }

    #[tokio::test]
    async fn tokens_are_listed_and_removed_by_number_and_owner() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        add(&accounts, "bob").await;
        let (alice, bob) = (user("alice"), user("bob"));
        let expires = Timestamp::from_second(2_000_000_000).expect("a time");
        accounts
            .add_token(&alice, "backup", Some(expires))
            .await
            .expect("made");
        let tokens = accounts.tokens(&alice).await.expect("readable");
        assert_eq!(tokens.len(), 1);
        assert_eq!(
            (&*tokens[0].label, tokens[0].expires),
            ("backup", Some(expires))
        );
        let id = tokens[0].id;
        let error = accounts
            .remove_token(&bob, id)
            .await
            .expect_err("not bob's");
        assert_eq!(
            error.to_string(),
            format!("user bob has no token {id}; `haul token list bob` shows all tokens")
        );
        accounts.remove_token(&alice, id).await.expect("removed");
        assert_eq!(accounts.tokens(&alice).await.expect("readable"), []);
    }

    #[tokio::test]
    async fn a_token_needs_a_user() {
        let (_directory, accounts) = accounts().await;
        let error = accounts
            .add_token(&user("bob"), "", None)
            .await
            .expect_err("nobody");
        assert!(matches!(error, AccountsError::NoSuchUser(_)), "{error}");
        let error = accounts.tokens(&user("bob")).await.expect_err("nobody");
        assert!(matches!(error, AccountsError::NoSuchUser(_)), "{error}");
    }
}

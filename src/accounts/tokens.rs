//! Tokens: generated passwords for programs, which can be revoked one by one.

use std::collections::HashMap;

use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use sqlx::FromRow as _;
use sqlx::sqlite::SqliteConnection;

use crate::accounts::account::{Account, Accounts};
use crate::accounts::database;
use crate::accounts::database::{read_error, write_error};
use crate::accounts::error::AccountsError;
use crate::accounts::name::UserName;
use crate::accounts::new_token::{TokenExpiry, TokenLabel};
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

/// A token that was just made. Only here is the token itself; the database has its hash.
#[derive(Debug)]
pub struct IssuedToken {
    /// The number of the token, by which it is removed.
    pub id: i64,
    /// The token: `haul_` and 52 letters and digits.
    pub token: Secret,
    /// When the token expires, if ever.
    pub expires: Option<Timestamp>,
}

/// The account that tokens belong to.
#[derive(Debug, Clone, Copy)]
pub enum TokenOwner<'a> {
    /// The present user of this name, for administrators.
    Named(&'a UserName),
    /// The account of a session. A later account with the same name is another one.
    Account(&'a Account),
}

impl<'a> From<&'a UserName> for TokenOwner<'a> {
    fn from(name: &'a UserName) -> Self {
        Self::Named(name)
    }
}

impl<'a> From<&'a Account> for TokenOwner<'a> {
    fn from(account: &'a Account) -> Self {
        Self::Account(account)
    }
}

impl TokenOwner<'_> {
    fn name(self) -> UserName {
        match self {
            Self::Named(name) => name.clone(),
            Self::Account(account) => account.name.clone(),
        }
    }

    /// The number of the account.
    async fn id(self, connection: &mut SqliteConnection) -> Result<i64, AccountsError> {
        let account = match self {
            Self::Named(name) => return users::id_of(connection, name).await,
            Self::Account(account) => account,
        };
        sqlx::query_scalar("SELECT id FROM users WHERE id = ? AND NOT disabled")
            .bind(account.id)
            .fetch_optional(connection)
            .await
            .map_err(read_error)?
            .ok_or_else(|| AccountsError::NoSuchUser(account.name.clone()))
    }
}

/// The most tokens of a user.
const MAX_TOKENS: usize = 200;

impl Accounts {
    /// Makes a token. It cannot be shown again, because only its hash is stored.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`], [`AccountsError::TooManyTokens`] or
    /// [`AccountsError::Database`].
    pub async fn issue_token(
        &self,
        owner: TokenOwner<'_>,
        label: &TokenLabel,
        expiry: TokenExpiry,
    ) -> Result<IssuedToken, AccountsError> {
        self.insert_token(owner, label.as_str(), expiry.timestamp())
            .await
    }

    /// As [`Self::issue_token`], for programs that choose the label and need only the token.
    ///
    /// # Errors
    /// As [`Self::issue_token`].
    pub async fn add_token(
        &self,
        user: &UserName,
        label: &str,
        expires: Option<Timestamp>,
    ) -> Result<Secret, AccountsError> {
        let issued = self.insert_token(user.into(), label, expires).await?;
        Ok(issued.token)
    }

    async fn insert_token(
        &self,
        owner: TokenOwner<'_>,
        label: &str,
        expires: Option<Timestamp>,
    ) -> Result<IssuedToken, AccountsError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| AccountsError::NoRandomness {
            reason: error.to_string(),
        })?;
        let token = format!("haul_{}", BASE32_NOPAD.encode(&random).to_ascii_lowercase());
        // The database counts in seconds.
        let expires = expires.map(Timestamp::as_second);
        let mut transaction = self.database.write().await?;
        let user = owner.id(&mut transaction).await?;
        make_room(&mut transaction, user, owner).await?;
        let insert = "INSERT INTO tokens (user, hash, label, created, expires) \
                      VALUES (?, ?, ?, ?, ?)";
        let inserted = sqlx::query(insert)
            .bind(user)
            .bind(token_hash(&token))
            .bind(label)
            .bind(Timestamp::now().as_second())
            .bind(expires)
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        let issued = IssuedToken {
            id: inserted.last_insert_rowid(),
            token: Secret::new(token),
            expires: expires
                .map(database::timestamp)
                .transpose()
                .map_err(write_error)?,
        };
        transaction.commit().await.map_err(write_error)?;
        Ok(issued)
    }

    /// The tokens of a user, the oldest first.
    ///
    /// # Errors
    /// [`AccountsError::NoSuchUser`] or [`AccountsError::Database`].
    pub async fn tokens<'a>(
        &self,
        owner: impl Into<TokenOwner<'a>>,
    ) -> Result<Vec<Token>, AccountsError> {
        let mut transaction = self.database.read().await?;
        let user = owner.into().id(&mut transaction).await?;
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
    pub async fn remove_token<'a>(
        &self,
        owner: impl Into<TokenOwner<'a>>,
        id: i64,
    ) -> Result<(), AccountsError> {
        let owner = owner.into();
        let mut transaction = self.database.write().await?;
        let deleted = sqlx::query("DELETE FROM tokens WHERE user = ? AND id = ?")
            .bind(owner.id(&mut transaction).await?)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .map_err(write_error)?;
        if deleted.rows_affected() == 0 {
            return Err(AccountsError::NoSuchToken {
                user: owner.name(),
                id,
            });
        }
        transaction.commit().await.map_err(write_error)
    }
}

/// Makes sure that the user may have one more token. Removes expired tokens if there are too many.
async fn make_room(
    connection: &mut SqliteConnection,
    user: i64,
    owner: TokenOwner<'_>,
) -> Result<(), AccountsError> {
    let max = i64::try_from(MAX_TOKENS).unwrap_or(i64::MAX);
    if count(connection, user).await? < max {
        return Ok(());
    }
    sqlx::query("DELETE FROM tokens WHERE user = ? AND expires <= ?")
        .bind(user)
        .bind(Timestamp::now().as_second())
        .execute(&mut *connection)
        .await
        .map_err(write_error)?;
    if count(connection, user).await? < max {
        return Ok(());
    }
    Err(AccountsError::TooManyTokens {
        user: owner.name(),
        max: MAX_TOKENS,
    })
}

async fn count(connection: &mut SqliteConnection, user: i64) -> Result<i64, AccountsError> {
    sqlx::query_scalar("SELECT count(*) FROM tokens WHERE user = ?")
        .bind(user)
        .fetch_one(connection)
        .await
        .map_err(read_error)
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

    #[tokio::test]
    async fn a_session_makes_no_token_for_a_later_account_of_the_same_name() {
        let (_directory, accounts) = accounts().await;
        let alice = user("alice");
        add(&accounts, "alice").await;
        let found = accounts.account(&alice).await.expect("readable");
        let old = found.expect("the account");
        accounts.remove_user(&alice).await.expect("removed");
        add(&accounts, "alice").await;
        let (label, expiry) = (TokenLabel::default(), TokenExpiry::default());
        let issued = accounts.issue_token((&old).into(), &label, expiry).await;
        let error = issued.expect_err("refused");
        assert!(matches!(error, AccountsError::NoSuchUser(_)), "{error}");
        assert_eq!(accounts.tokens(&alice).await.expect("readable"), []);
    }

    #[tokio::test]
    async fn a_user_has_a_bounded_number_of_tokens_and_expired_ones_make_room() {
        let (_directory, accounts) = accounts().await;
        add(&accounts, "alice").await;
        let alice = user("alice");
        let past = Timestamp::from_second(1).expect("a time");
        accounts
            .add_token(&alice, "old", Some(past))
            .await
            .expect("made");
        for _ in 1..=MAX_TOKENS {
            accounts.add_token(&alice, "", None).await.expect("made");
        }
        let tokens = accounts.tokens(&alice).await.expect("readable");
        assert_eq!(tokens.len(), MAX_TOKENS);
        assert!(tokens.iter().all(|token| token.label.is_empty()));
        let error = accounts
            .add_token(&alice, "", None)
            .await
            .expect_err("refused");
        assert!(
            matches!(error, AccountsError::TooManyTokens { .. }),
            "{error}"
        );
    }
}

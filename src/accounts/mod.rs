//! The boundary to identities: users, password hashes, shared folders with their rights, and tokens.
//!
//! They live in `haul.db`, an `SQLite` database in the data directory. The server and the command
//! line may use it at the same time; each sees the changes of the other within about half a second.
//! Passwords are hashed on threads of their own, a bounded number at once. One task watches the
//! database for changes.

mod account;
mod backup;
mod database;
mod error;
mod first_admin;
mod folders;
mod hashing;
mod limit;
mod login;
mod name;
mod new_token;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;
mod users;

pub use crate::accounts::account::{Account, Accounts, Grant};
pub use crate::accounts::backup::{Owners, copy};
pub use crate::accounts::error::{AccountsError, UNFINISHED_BACKUP};
pub use crate::accounts::first_admin::{FIRST_USER, first_password_file};
pub use crate::accounts::folders::{Folder, FolderMember};
pub use crate::accounts::hashing::{HashingCost, check_new_password};
pub use crate::accounts::limit::Limit;
pub use crate::accounts::login::{Credential, CredentialStatus};
pub use crate::accounts::name::{FolderName, InvalidName, UserName};
pub use crate::accounts::new_token::{
    DEFAULT_TOKEN_DAYS, InvalidExpiry, InvalidLabel, MAX_LABEL_CHARS, TokenExpiry, TokenLabel,
};
pub use crate::accounts::tokens::{IssuedToken, Token, TokenOwner};
pub use crate::accounts::users::{NewUser, User, UserChange};

#![allow(missing_docs, clippy::all, clippy::pedantic)]
use crate::storage::{Limits, Rights};
#[derive(Debug, Clone, PartialEq)]
pub struct UserName(String);
impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl std::fmt::Display for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
pub type FolderName = UserName;
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub name: FolderName,
    pub rights: Rights,
    pub limits: Limits,
}
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub name: UserName,
    pub admin: bool,
    pub limits: Limits,
    pub folders: Vec<Grant>,
}
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    #[error("x")]
    LoginFailed,
    #[error("y")]
    Other,
}
#[derive(Debug, Clone)]
pub struct Accounts;
impl Accounts {
    pub async fn account(&self, _: &UserName) -> Result<Option<Account>, AccountsError> {
        Ok(None)
    }
    pub async fn log_in_with_password(&self, _: &str, _: &str) -> Result<Account, AccountsError> {
        Err(AccountsError::LoginFailed)
    }
    pub async fn log_in_with_token(&self, _: &str) -> Result<Account, AccountsError> {
        Err(AccountsError::LoginFailed)
    }
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
}

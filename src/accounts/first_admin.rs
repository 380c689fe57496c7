//! The first account, which the server creates at its first start, and the file with its password.

use std::io;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::accounts::account::Accounts;
use crate::accounts::error::AccountsError;
use crate::accounts::name::UserName;

/// The name of the account that the server creates at its first start.
pub const FIRST_USER: &str = "admin";

/// The file in the data directory `data` that the server writes its password to if no terminal can
/// show it.
#[must_use]
pub fn first_password_file(data: &Path) -> PathBuf {
    data.join("admin-password")
}

impl Accounts {
    /// Removes the file with the first password after the password of `user` has changed.
    pub(crate) async fn forget_first_password(&self, user: &UserName) -> Result<(), AccountsError> {
        if user.as_str() != FIRST_USER {
            return Ok(());
        }
        let file = first_password_file(self.database.data());
        let path = file.clone();
        let removing = spawn_blocking(move || std::fs::remove_file(&file));
        match removing.await.map_err(io::Error::other).flatten() {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(AccountsError::Io {
                doing: "remove the old password in",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }
}

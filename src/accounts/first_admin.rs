//! The first account, which the server makes itself, and the file that may hold its password.

use std::io;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::accounts::{Accounts, AccountsError, UserName};

/// The name of the account that is made at the first start.
pub const FIRST_USER: &str = "admin";

/// Where its password is, in the data directory `data`, if nobody was there to read it.
#[must_use]
pub fn first_password_file(data: &Path) -> PathBuf {
    data.join("admin-password")
}

impl Accounts {
    /// Removes the file with the first password, which is no longer that of `user`.
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

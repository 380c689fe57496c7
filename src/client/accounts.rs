//! Lists of tokens and folders, all pages of each.

use crate::client::{Client, ClientError};
use crate::protocol::{FolderEntry, Folders, TokenEntry, Tokens};

impl Client {
    /// The tokens of this session's user. Only a user with the admin right may ask for those of
    /// another `user`.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ClientError::InvalidReply`] if the pages do not end.
    pub async fn tokens(&self, user: Option<&str>) -> Result<Vec<TokenEntry>, ClientError> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let page = Tokens {
                user: user.map(str::to_owned),
                limit: None,
                cursor: cursor.clone(),
            };
            let reply = self.call(page).await?;
            all.extend(reply.tokens);
            cursor = match next_page(cursor.as_ref(), reply.cursor)? {
                None => return Ok(all),
                next => next,
            };
        }
    }

    /// The shared folders with their members. Only for users with the admin right.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ClientError::InvalidReply`] if the pages do not end.
    pub async fn folders(&self) -> Result<Vec<FolderEntry>, ClientError> {
        let mut all = Vec::new();
        let mut cursor = None;
        loop {
            let page = Folders {
                limit: None,
                cursor: cursor.clone(),
            };
            let reply = self.call(page).await?;
            all.extend(reply.folders);
            cursor = match next_page(cursor.as_ref(), reply.cursor)? {
                None => return Ok(all),
                next => next,
            };
        }
    }
}

fn next_page(last: Option<&String>, next: Option<String>) -> Result<Option<String>, ClientError> {
    if next.is_some() && last == next.as_ref() {
        let text = "a list with the same cursor twice";
        return Err(ClientError::InvalidReply(text.into()));
    }
    Ok(next)
}

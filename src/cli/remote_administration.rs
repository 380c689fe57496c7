//! Accounts, folders and tokens of a server, for users with the admin right. The server writes the
//! audit and checks passwords.

use crate::accounts::{FolderName, Limit, NewUser, TokenExpiry, TokenLabel, UserChange, UserName};
use crate::cli::administration::{
    Administration, FolderMemberObject, FolderObject, NewToken, TokenObject, UserObject,
};
use crate::client::Client;
use crate::protocol::{
    FolderAdd, FolderEntry, FolderGrant, FolderRemove, FolderRevoke, Secret, TokenAdd, TokenEntry,
    TokenRemove, UserAdd, UserEntry, UserPasswd, UserRemove, UserSet,
};
use crate::storage::{Rights, SpaceLimits};

impl Administration for Client {
    async fn users(&self) -> anyhow::Result<Vec<UserObject>> {
        let users = Client::users(self).await?;
        Ok(users.into_iter().map(UserObject::from).collect())
    }

    fn check_password(&self, _password: &Secret) -> anyhow::Result<()> {
        Ok(())
    }

    async fn add_user(
        &self,
        name: &UserName,
        password: &Secret,
        new: NewUser,
    ) -> anyhow::Result<()> {
        let request = UserAdd {
            user: name.to_string(),
            password: password.clone(),
            admin: new.admin,
            limit: new.limits.bytes,
            files_limit: new.limits.files,
        };
        self.call(request).await?;
        Ok(())
    }

    async fn set_user(&self, name: &UserName, change: UserChange) -> anyhow::Result<()> {
        let number = |limit: Option<Limit>| match limit {
            Some(Limit::AtMost(number)) => Some(number),
            Some(Limit::Unlimited) | None => None,
        };
        let request = UserSet {
            user: name.to_string(),
            admin: change.admin,
            disabled: change.disabled,
            limit: number(change.bytes),
            no_limit: change.bytes == Some(Limit::Unlimited),
            files_limit: number(change.files),
            no_files_limit: change.files == Some(Limit::Unlimited),
        };
        self.call(request).await?;
        Ok(())
    }

    async fn set_password(&self, name: &UserName, password: &Secret) -> anyhow::Result<()> {
        let request = UserPasswd {
            user: name.to_string(),
            password: password.clone(),
        };
        self.call(request).await?;
        Ok(())
    }

    async fn remove_user(&self, name: &UserName) -> anyhow::Result<bool> {
        let user = name.to_string();
        Ok(self.call(UserRemove { user }).await?.had_files)
    }

    async fn folders(&self) -> anyhow::Result<Vec<FolderObject>> {
        let folders = Client::folders(self).await?;
        Ok(folders.into_iter().map(FolderObject::from).collect())
    }

    async fn add_folder(&self, folder: &FolderName, limits: SpaceLimits) -> anyhow::Result<()> {
        let request = FolderAdd {
            folder: folder.to_string(),
            limit: limits.bytes,
            files_limit: limits.files,
        };
        self.call(request).await?;
        Ok(())
    }

    async fn grant(
        &self,
        folder: &FolderName,
        user: &UserName,
        rights: Rights,
    ) -> anyhow::Result<()> {
        let request = FolderGrant {
            folder: folder.to_string(),
            user: user.to_string(),
            rights: rights.names(),
        };
        self.call(request).await?;
        Ok(())
    }

    async fn revoke(&self, folder: &FolderName, user: &UserName) -> anyhow::Result<()> {
        let (folder, user) = (folder.to_string(), user.to_string());
        self.call(FolderRevoke { folder, user }).await?;
        Ok(())
    }

    async fn remove_folder(&self, folder: &FolderName) -> anyhow::Result<bool> {
        let folder = folder.to_string();
        Ok(self.call(FolderRemove { folder }).await?.had_files)
    }

    async fn tokens(&self, user: &UserName) -> anyhow::Result<Vec<TokenObject>> {
        let tokens = Client::tokens(self, Some(user.as_str())).await?;
        Ok(tokens.into_iter().map(TokenObject::from).collect())
    }

    async fn issue_token(
        &self,
        user: &UserName,
        label: &TokenLabel,
        expiry: Option<TokenExpiry>,
    ) -> anyhow::Result<NewToken> {
        let request = token_request(Some(user), label, expiry);
        let reply = self.call(request).await?;
        Ok(NewToken {
            id: reply.number,
            token: reply.token,
            expires: reply.expires,
        })
    }

    async fn remove_token(&self, user: &UserName, id: u64) -> anyhow::Result<()> {
        let request = TokenRemove {
            number: id,
            user: Some(user.to_string()),
        };
        self.call(request).await?;
        Ok(())
    }
}

/// The request for a token of `user`, or of the user of the session.
pub(super) fn token_request(
    user: Option<&UserName>,
    label: &TokenLabel,
    expiry: Option<TokenExpiry>,
) -> TokenAdd {
    TokenAdd {
        user: user.map(ToString::to_string),
        label: Some(label.as_str().to_owned()).filter(|label| !label.is_empty()),
        expires: expiry.and_then(TokenExpiry::timestamp),
        never_expires: expiry == Some(TokenExpiry::Never),
    }
}

impl From<UserEntry> for UserObject {
    fn from(user: UserEntry) -> Self {
        Self {
            name: user.user,
            admin: user.admin,
            disabled: user.disabled,
            quota: user.limit,
            files: user.files_limit,
            created: user.created,
        }
    }
}

impl From<FolderEntry> for FolderObject {
    fn from(folder: FolderEntry) -> Self {
        let members = folder.members.into_iter().map(|member| FolderMemberObject {
            user: member.user,
            rights: member.rights,
        });
        Self {
            name: folder.folder,
            quota: folder.limit,
            files: folder.files_limit,
            created: folder.created,
            members: members.collect(),
            more: folder.more,
        }
    }
}

impl From<TokenEntry> for TokenObject {
    fn from(token: TokenEntry) -> Self {
        Self {
            id: token.number,
            label: token.label,
            created: token.created,
            expires: token.expires,
            current: token.current,
        }
    }
}

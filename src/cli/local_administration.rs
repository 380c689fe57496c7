//! Accounts, folders and tokens in a data directory on this machine, whether its server runs or not.

use crate::accounts::{
    Accounts, AccountsError, FolderName, Limit, NewUser, TokenExpiry, TokenLabel, UserChange,
    UserName, check_new_password,
};
use crate::cli::administration::{Administration, FolderObject, NewToken, TokenObject, UserObject};
use crate::cli::audit::{AuditArgs, AuditedChange};
use crate::cli::data::DataDirArgs;
use crate::cli::output::Output;
use crate::protocol::Secret;
use crate::storage::{Rights, SpaceLimits};

/// The accounts of a data directory, with the audit of its server.
#[derive(Debug)]
pub(super) struct LocalAdministration {
    accounts: Accounts,
    /// Absent for commands that change nothing.
    audit: Option<AuditArgs>,
    min_password: usize,
}

/// How a command uses the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataUse {
    /// It reads the accounts.
    Read,
    /// It changes the accounts.
    Change,
    /// It changes them, and makes the directory if there is none.
    Create,
}

impl LocalAdministration {
    pub(super) async fn open(
        data: &DataDirArgs,
        data_use: DataUse,
        output: Output,
    ) -> anyhow::Result<Self> {
        // Opened first: nothing is changed that the audit could not hold.
        let audit = match data_use {
            DataUse::Read => None,
            DataUse::Change | DataUse::Create => Some(data.audit(output)?),
        };
        let accounts = match data_use {
            DataUse::Create => data.open_or_make(output).await?,
            DataUse::Read | DataUse::Change => data.open().await?,
        };
        Ok(Self {
            accounts,
            audit,
            min_password: data.min_password()?,
        })
    }

    fn note(&self, cmd: &str, changed: AuditedChange<'_>) -> anyhow::Result<()> {
        match &self.audit {
            Some(audit) => Ok(audit.note(cmd, changed)?),
            None => Ok(()),
        }
    }
}

fn user(name: &UserName) -> AuditedChange<'_> {
    AuditedChange {
        user: Some(name.as_str()),
        ..AuditedChange::default()
    }
}

fn folder<'a>(folder: &'a FolderName, user: Option<&'a UserName>) -> AuditedChange<'a> {
    AuditedChange {
        folder: Some(folder.as_str()),
        user: user.map(UserName::as_str),
        ..AuditedChange::default()
    }
}

fn token(name: &UserName, token: i64) -> AuditedChange<'_> {
    AuditedChange {
        token: Some(token),
        ..user(name)
    }
}

impl Administration for LocalAdministration {
    async fn users(&self) -> anyhow::Result<Vec<UserObject>> {
        let users = self.accounts.users().await?;
        Ok(users.into_iter().map(UserObject::from).collect())
    }

    fn check_password(&self, password: &Secret) -> anyhow::Result<()> {
        Ok(check_new_password(password, self.min_password)?)
    }

    async fn add_user(
        &self,
        name: &UserName,
        password: &Secret,
        new: NewUser,
    ) -> anyhow::Result<()> {
        self.accounts.add_user(name, password, new).await?;
        self.note("user add", user(name))
    }

    async fn set_user(&self, name: &UserName, change: UserChange) -> anyhow::Result<()> {
        self.accounts.set_user(name, change).await?;
        let to = describe(change);
        let changed = AuditedChange {
            to: Some(&to),
            ..user(name)
        };
        self.note("user set", changed)
    }

    async fn set_password(&self, name: &UserName, password: &Secret) -> anyhow::Result<()> {
        self.accounts.set_password(name, password).await?;
        self.note("user passwd", user(name))
    }

    async fn remove_user(&self, name: &UserName) -> anyhow::Result<bool> {
        let removed = self.accounts.remove_user(name).await;
        if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
            self.note("user remove", user(name))?;
        }
        Ok(removed?)
    }

    async fn folders(&self) -> anyhow::Result<Vec<FolderObject>> {
        let folders = self.accounts.folders().await?;
        Ok(folders.into_iter().map(FolderObject::from).collect())
    }

    async fn add_folder(&self, name: &FolderName, limits: SpaceLimits) -> anyhow::Result<()> {
        self.accounts.add_folder(name, limits).await?;
        self.note("folder add", folder(name, None))
    }

    async fn grant(
        &self,
        name: &FolderName,
        user: &UserName,
        rights: Rights,
    ) -> anyhow::Result<()> {
        self.accounts.grant(name, user, rights).await?;
        let to = rights.to_string();
        let granted = AuditedChange {
            to: Some(&to),
            ..folder(name, Some(user))
        };
        self.note("folder grant", granted)
    }

    async fn revoke(&self, name: &FolderName, user: &UserName) -> anyhow::Result<()> {
        self.accounts.revoke(name, user).await?;
        self.note("folder revoke", folder(name, Some(user)))
    }

    async fn remove_folder(&self, name: &FolderName) -> anyhow::Result<bool> {
        let removed = self.accounts.remove_folder(name).await;
        if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
            self.note("folder remove", folder(name, None))?;
        }
        Ok(removed?)
    }

    async fn tokens(&self, user: &UserName) -> anyhow::Result<Vec<TokenObject>> {
        let tokens = self.accounts.tokens(user).await?;
        Ok(tokens.into_iter().map(TokenObject::from).collect())
    }

    async fn issue_token(
        &self,
        user: &UserName,
        label: &TokenLabel,
        expiry: Option<TokenExpiry>,
    ) -> anyhow::Result<NewToken> {
        let expiry = expiry.unwrap_or_default();
        let issued = self
            .accounts
            .issue_token(user.into(), label, expiry)
            .await?;
        // The token is in the database only as a hash: a failure of the audit must not lose it too.
        let noted = self.note("token add", token(user, issued.id));
        if let Err(error) = noted {
            self.accounts.remove_token(user, issued.id).await?;
            return Err(error);
        }
        Ok(NewToken {
            id: issued.id.unsigned_abs(),
            token: issued.token,
            expires: issued.expires,
        })
    }

    async fn remove_token(&self, user: &UserName, id: u64) -> anyhow::Result<()> {
        // No token has a number that does not fit.
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        self.accounts.remove_token(user, id).await?;
        self.note("token remove", token(user, id))
    }
}

/// The change in the words of the options.
fn describe(change: UserChange) -> String {
    let switch = |value: Option<bool>, on: &str, off: &str| {
        value.map(|value| if value { on } else { off }.to_owned())
    };
    let limit = |name: &str, limit: Option<Limit>| match limit? {
        Limit::AtMost(number) => Some(format!("{name}={number}")),
        Limit::Unlimited => Some(format!("{name}=none")),
    };
    let words = [
        switch(change.admin, "admin", "no-admin"),
        switch(change.disabled, "disable", "enable"),
        limit("quota", change.bytes),
        limit("files", change.files),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

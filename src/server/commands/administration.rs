//! What the commands about accounts, folders and tokens share: names from the wire, the line in the
//! audit, and errors without advice about the command line of the server's machine.

use std::sync::Arc;

use tracing::info;

use crate::accounts::{
    Account, Accounts, AccountsError, FolderName, InvalidName, TokenOwner, UserName,
    check_new_password,
};
use crate::protocol::Secret;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::SpaceLimits;
use crate::telemetry::AUDIT;

/// A change of the accounts, for the audit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AccountsChange<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) folder: Option<&'a str>,
    /// The number of a token.
    pub(crate) token: Option<i64>,
    /// The new state: limits and switches, or rights.
    pub(crate) set: Option<&'a str>,
}

impl AccountsChange<'_> {
    /// Writes the line of `cmd`, after the change is made.
    pub(crate) fn log(self, cmd: &'static str) {
        info!(
            name: "accounts_changed",
            target: AUDIT,
            cmd,
            on_user = self.user,
            on_folder = self.folder,
            token = self.token,
            set = self.set,
            "changed the accounts"
        );
    }
}

/// Whose tokens a request is about.
#[derive(Debug)]
pub(crate) enum NamedOwner {
    /// The user of the session.
    Own(Arc<Account>),
    /// Another user. The member has the admin right.
    Other(UserName),
}

impl NamedOwner {
    /// The owner that the field `user` of `cmd` names; the member if it is absent.
    ///
    /// # Errors
    /// [`CommandError::AdminsOnly`] for another user without the admin right.
    pub(crate) fn resolve(
        member: &Member,
        cmd: &'static str,
        user: Option<&str>,
    ) -> Result<Self, CommandError> {
        let account = member.authority.account()?;
        match user {
            Some(user) if user != account.name.as_str() => {
                member.authority.check_admin(cmd)?;
                Ok(Self::Other(user_name(user)?))
            }
            _ => Ok(Self::Own(account)),
        }
    }

    pub(crate) fn name(&self) -> &UserName {
        match self {
            Self::Own(account) => &account.name,
            Self::Other(name) => name,
        }
    }

    /// The accounts, for a change of the tokens of this owner.
    pub(crate) fn accounts(&self, member: &Member) -> Result<Accounts, CommandError> {
        match self {
            Self::Own(_) => Ok(member.shared.accounts.clone()),
            Self::Other(_) => accounts_for_admin(member),
        }
    }

    pub(crate) fn as_owner(&self) -> TokenOwner<'_> {
        match self {
            Self::Own(account) => (&**account).into(),
            Self::Other(name) => name.into(),
        }
    }
}

/// The accounts, for changes by this administrator. Each change checks the right once more in its own
/// transaction, because the session learns only within two seconds that it was lost.
pub(crate) fn accounts_for_admin(member: &Member) -> Result<Accounts, CommandError> {
    let account = member.authority.account()?;
    Ok(member.shared.accounts.clone().for_admin(account.id))
}

/// Checks that the session may give access that outlives it: tokens, administrators, and passwords of
/// administrators. A session that a token opened may not, since a stolen token would otherwise give
/// access after it expires or is revoked.
///
/// # Errors
/// [`CommandError::AccessByToken`].
pub(crate) fn check_may_give_access(member: &Member) -> Result<(), CommandError> {
    if member.authority.credential().token.is_some() {
        return Err(CommandError::AccessByToken);
    }
    Ok(())
}

/// As [`check_may_give_access`], if the user `name` is an administrator or may become one again by
/// being enabled.
///
/// # Errors
/// [`CommandError::AccessByToken`], and those of the accounts.
pub(crate) async fn check_may_give_access_to(
    member: &Member,
    name: &UserName,
) -> Result<(), CommandError> {
    let account = member.shared.accounts.account(name).await?;
    if account.is_none_or(|account| account.admin) {
        check_may_give_access(member)?;
    }
    Ok(())
}

/// The user name in the field `user`.
pub(crate) fn user_name(text: &str) -> Result<UserName, CommandError> {
    let name = text.parse();
    name.map_err(|error: InvalidName| CommandError::invalid_field("user", error))
}

/// The name of another user in the field `user`. Administrators cannot lock themselves out, and
/// change their own password with `passwd`, which asks for the old one.
pub(crate) fn other_user_name(member: &Member, text: &str) -> Result<UserName, CommandError> {
    let name = user_name(text)?;
    if name.as_str() == member.authority.name() {
        let message = "this is your own account; another administrator has to do this";
        return Err(CommandError::invalid_field("user", message));
    }
    Ok(name)
}

/// The folder name in the field `folder`.
pub(crate) fn folder_name(text: &str) -> Result<FolderName, CommandError> {
    let name = text.parse();
    name.map_err(|error: InvalidName| CommandError::invalid_field("folder", error))
}

/// Checks a new password in the field `field` before it is hashed.
pub(crate) fn check_password(
    member: &Member,
    field: &'static str,
    password: &Secret,
) -> Result<(), CommandError> {
    let min = member.shared.config().auth.min_password;
    check_new_password(password, min).map_err(|error| CommandError::invalid_field(field, error))
}

/// The limits of something new, as the audit shows them.
pub(crate) fn describe_limits(limits: SpaceLimits) -> String {
    let parts = [("limit", limits.bytes), ("files_limit", limits.files)];
    let given = parts
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)));
    let words: Vec<_> = given
        .map(|(name, limit)| format!("{name}={limit}"))
        .collect();
    words.join(" ")
}

/// The error of a change that a client asked for with `cmd`.
pub(crate) fn refusal(cmd: &'static str) -> impl Fn(AccountsError) -> CommandError {
    use AccountsError as E;
    move |error| match error {
        E::UserExists(name) => CommandError::NameTaken(name),
        E::NoSuchUser(name) => CommandError::NoSuchUser(name.to_string()),
        E::FolderExists(name) => CommandError::FolderExists(name),
        E::NoSuchFolder(name) => CommandError::NoSuchFolder(name),
        E::NoSuchGrant { folder, user } => CommandError::NoSuchGrant { folder, user },
        E::NoSuchToken { user, id } => CommandError::NoSuchToken { user, id },
        E::NotAdmin => CommandError::AdminsOnly(cmd),
        E::TooManyTokens { user, max } => CommandError::TooManyTokens { user, max },
        error => error.into(),
    }
}

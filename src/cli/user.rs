//! `haul user` and `haul admin user`: users, their passwords and their limits.

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand};
use tokio::task::spawn_blocking;

use crate::accounts::{AccountsError, Limit, NewUser, UserChange, UserName};
use crate::cli::administration::{Administration, UserObject};
use crate::cli::data;
use crate::cli::data::{DataDirArgs, NewLimits};
use crate::cli::local_administration::{DataUse, LocalAdministration};
use crate::cli::output::{Output, safe};
use crate::cli::password::new_password;
use crate::cli::table::table;
use crate::protocol::Secret;

/// Manage users, on the server's machine
///
/// The server may run or not. `haul admin user` does the same on a server elsewhere.
#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(subcommand)]
    command: UserCommand,
}

/// What `haul user` and `haul admin user` do.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    Add(UserAddArgs),
    /// List the users with their limits
    List,
    Set(UserSetArgs),
    /// Refuse logins of a user, and end open sessions
    Disable(UserNamedArgs),
    /// Allow logins of a disabled user again
    Enable(UserNamedArgs),
    /// Set the password of a user
    Passwd(UserNamedArgs),
    /// Remove a user, and move the files to removed/ in the data directory
    Remove(UserNamedArgs),
}

/// Add a user
///
/// A terminal is asked for the password; otherwise it is the first line of standard input. It has at
/// least as many characters as the setting `auth.min_password` says.
#[derive(Debug, Args)]
pub(super) struct UserAddArgs {
    /// 1 to 32 lower-case letters, digits, ".", "_" or "-"
    name: UserName,
    /// Give the user the admin right
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    limits: NewLimits,
}

/// Change the rights and limits of a user
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["admin", "no_admin", "disable", "enable", "quota", "files"]))]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four flags of a command line"
)]
pub(super) struct UserSetArgs {
    /// The user
    name: UserName,
    /// Give the user the admin right
    #[arg(long, conflicts_with = "no_admin")]
    admin: bool,
    /// Take the admin right away
    #[arg(long)]
    no_admin: bool,
    /// Refuse logins of the user, and end open sessions
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    /// Allow logins again
    #[arg(long)]
    enable: bool,
    /// The quota of the home, such as 500MB or 10GiB, or "none"
    #[arg(long, value_name = "SIZE")]
    quota: Option<Limit>,
    /// The limit of files and directories, or "none" for the one that the quota implies
    #[arg(long, value_name = "N", value_parser = data::files)]
    files: Option<Limit>,
}

/// A user who exists.
#[derive(Debug, Args)]
pub(super) struct UserNamedArgs {
    /// The user
    name: UserName,
}

impl UserArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let data_use = match self.command {
            UserCommand::Add(_) => DataUse::Create,
            UserCommand::List => DataUse::Read,
            _ => DataUse::Change,
        };
        let local = LocalAdministration::open(&self.data, data_use, output).await?;
        self.command.run(&local, output).await
    }
}

impl UserCommand {
    pub(super) async fn run(
        self,
        target: &impl Administration,
        output: Output,
    ) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(target, output).await,
            Self::List => list(target, output).await,
            Self::Set(set) => set.run(target, output).await,
            Self::Disable(user) => set_disabled(target, &user.name, true, output).await,
            Self::Enable(user) => set_disabled(target, &user.name, false, output).await,
            Self::Passwd(user) => passwd(target, &user.name, output).await,
            Self::Remove(user) => remove(target, &user.name, output).await,
        }
    }
}

impl UserAddArgs {
    async fn run(self, target: &impl Administration, output: Output) -> anyhow::Result<()> {
        // Nobody likes to choose a password for nothing.
        if exists(target, &self.name).await? {
            bail!(AccountsError::UserExists(self.name));
        }
        let password = ask_new_password(target, &self.name).await?;
        let new = NewUser {
            admin: self.admin,
            limits: self.limits.into(),
        };
        target.add_user(&self.name, &password, new).await?;
        output.note(&format!("added user {}", self.name));
        Ok(())
    }
}

impl UserSetArgs {
    async fn run(self, target: &impl Administration, output: Output) -> anyhow::Result<()> {
        let switch = |on: bool, off: bool| (on || off).then_some(on);
        let change = UserChange {
            admin: switch(self.admin, self.no_admin),
            disabled: switch(self.disable, self.enable),
            bytes: self.quota,
            files: self.files,
        };
        target.set_user(&self.name, change).await?;
        output.note(&format!("changed user {}", self.name));
        Ok(())
    }
}

async fn set_disabled(
    target: &impl Administration,
    name: &UserName,
    disabled: bool,
    output: Output,
) -> anyhow::Result<()> {
    let change = UserChange {
        disabled: Some(disabled),
        ..UserChange::default()
    };
    target.set_user(name, change).await?;
    let done = if disabled { "disabled" } else { "enabled" };
    output.note(&format!("{done} user {name}"));
    Ok(())
}

async fn list(target: &impl Administration, output: Output) -> anyhow::Result<()> {
    let users = target.users().await?;
    output.list(&users, || {
        let rows: Vec<_> = users.iter().map(row).collect();
        table(["NAME", "ROLE", "QUOTA", "FILES", "STATE"], &rows)
    })
}

fn row(user: &UserObject) -> [String; 5] {
    let role = if user.admin { "admin" } else { "user" };
    let [quota, files] = data::columns(user.quota, user.files);
    let state = if user.disabled { "disabled" } else { "" };
    [
        safe(&user.name).into_owned(),
        role.into(),
        quota,
        files,
        state.into(),
    ]
}

async fn passwd(
    target: &impl Administration,
    name: &UserName,
    output: Output,
) -> anyhow::Result<()> {
    if !exists(target, name).await? {
        bail!(AccountsError::NoSuchUser(name.clone()));
    }
    let password = ask_new_password(target, name).await?;
    target.set_password(name, &password).await?;
    output.note(&format!("changed the password of user {name}"));
    Ok(())
}

async fn remove(
    target: &impl Administration,
    name: &UserName,
    output: Output,
) -> anyhow::Result<()> {
    if target.remove_user(name).await? {
        output.note(&format!(
            "removed user {name}; its files are in the data directory, under removed/"
        ));
    } else {
        output.note(&format!("removed user {name}, who had no files"));
    }
    Ok(())
}

async fn ask_new_password(target: &impl Administration, name: &UserName) -> anyhow::Result<Secret> {
    let asked = name.to_string();
    let password = spawn_blocking(move || new_password(&asked)).await??;
    target.check_password(&password)?;
    Ok(password)
}

async fn exists(target: &impl Administration, name: &UserName) -> anyhow::Result<bool> {
    let users = target.users().await?;
    Ok(users.iter().any(|user| user.name == name.as_str()))
}

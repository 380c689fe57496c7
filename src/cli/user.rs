//! `haul user` and `haul admin user`: users, their passwords and their limits.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand};
use tokio::task::spawn_blocking;

use crate::accounts::{AccountsError, Limit, NewUser, UserChange, UserName};
use crate::cli::administration::{Administration, UserObject};
use crate::cli::data;
use crate::cli::data::{DataDirArgs, NewLimits};
use crate::cli::global_options::GlobalOptions;
use crate::cli::local_administration::{DataUse, LocalAdministration};
use crate::cli::output::{Output, safe};
use crate::cli::password::new_password;
use crate::cli::remote_session::first_line;
use crate::cli::table::table;
use crate::cli::terminal::{is_agreed, is_terminal};
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
    Remove(UserRemoveArgs),
}

/// Add a user
///
/// A terminal is asked for the password; otherwise it is the first line of standard input, or on the
/// server's machine that of `--password-file`. It has at least as many characters as the setting
/// `auth.min_password` says.
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

/// The user to remove.
#[derive(Debug, Args)]
pub(super) struct UserRemoveArgs {
    /// The user
    name: UserName,
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
}

/// The source of a new password.
#[derive(Debug, Clone)]
pub(super) enum NewPasswordSource {
    /// A terminal or standard input.
    Input,
    /// The first line of a file.
    File(PathBuf),
}

impl NewPasswordSource {
    fn new(file: Option<&Path>) -> Self {
        file.map_or(Self::Input, |file| Self::File(file.to_owned()))
    }
}

impl UserArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        let data_use = match self.command {
            UserCommand::Add(_) => DataUse::Create,
            UserCommand::List => DataUse::Read,
            _ => DataUse::Change,
        };
        let local = LocalAdministration::open(&self.data, data_use, output).await?;
        let source = NewPasswordSource::new(global.password_file.as_deref());
        self.command.run(&local, source, output).await
    }
}

impl UserCommand {
    pub(super) async fn run(
        self,
        target: &impl Administration,
        source: NewPasswordSource,
        output: Output,
    ) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(target, source, output).await,
            Self::List => list(target, output).await,
            Self::Set(set) => set.run(target, output).await,
            Self::Disable(user) => set_disabled(target, &user.name, true, output).await,
            Self::Enable(user) => set_disabled(target, &user.name, false, output).await,
            Self::Passwd(user) => passwd(target, &user.name, source, output).await,
            Self::Remove(user) => user.run(target, output).await,
        }
    }
}

impl UserAddArgs {
    async fn run(
        self,
        target: &impl Administration,
        source: NewPasswordSource,
        output: Output,
    ) -> anyhow::Result<()> {
        // Nobody likes to choose a password for nothing.
        if exists(target, &self.name).await? {
            bail!(AccountsError::UserExists(self.name));
        }
        let password = ask_new_password(target, &self.name, source).await?;
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
    source: NewPasswordSource,
    output: Output,
) -> anyhow::Result<()> {
    if !exists(target, name).await? {
        bail!(AccountsError::NoSuchUser(name.clone()));
    }
    let password = ask_new_password(target, name, source).await?;
    target.set_password(name, &password).await?;
    output.note(&format!("changed the password of user {name}"));
    Ok(())
}

impl UserRemoveArgs {
    async fn run(self, target: &impl Administration, output: Output) -> anyhow::Result<()> {
        let name = &self.name;
        let question = format!("Remove user {name}? The files go to removed/. [y/N] ");
        if !self.yes && is_terminal() && !is_agreed(question).await? {
            bail!("user {name} was not removed");
        }
        remove(target, name, output).await
    }
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

async fn ask_new_password(
    target: &impl Administration,
    name: &UserName,
    source: NewPasswordSource,
) -> anyhow::Result<Secret> {
    let asked = name.to_string();
    let password = spawn_blocking(move || match source {
        NewPasswordSource::Input => new_password(&asked),
        NewPasswordSource::File(path) => first_line(&path),
    })
    .await??;
    target.check_password(&password)?;
    Ok(password)
}

async fn exists(target: &impl Administration, name: &UserName) -> anyhow::Result<bool> {
    let users = target.users().await?;
    Ok(users.iter().any(|user| user.name == name.as_str()))
}

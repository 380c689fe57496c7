//! `haul user`: users, their passwords and their limits.

use anyhow::bail;
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use crate::accounts;
use crate::accounts::{
    Accounts, AccountsError, Limit, NewUser, UserChange, UserName, check_new_password,
};
use crate::cli::audit::AuditedChange;
use crate::cli::data;
use crate::cli::data::{DataDirArgs, NewLimits};
use crate::cli::output::Output;
use crate::cli::password::new_password;
use crate::cli::table::table;

/// Manage users, on the server's machine
#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    Add(UserAddArgs),
    /// List the users with their limits
    List,
    Set(UserSetArgs),
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
struct UserAddArgs {
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
struct UserSetArgs {
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

#[derive(Debug, Args)]
struct UserNamedArgs {
    /// The user
    name: UserName,
}

/// A user as `--json` shows it.
#[derive(Debug, Serialize)]
struct UserObject {
    name: UserName,
    admin: bool,
    disabled: bool,
    quota: Option<u64>,
    files: Option<u64>,
    created: jiff::Timestamp,
}

impl UserArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        match self.command {
            UserCommand::Add(add) => add.run(&self.data, output).await,
            UserCommand::List => list(&self.data.open().await?, output).await,
            UserCommand::Set(set) => set.run(&self.data, output).await,
            UserCommand::Passwd(user) => passwd(&self.data, &user.name, output).await,
            UserCommand::Remove(user) => remove(&self.data, &user.name, output).await,
        }
    }
}

impl UserAddArgs {
    async fn run(self, data: &DataDirArgs, output: Output) -> anyhow::Result<()> {
        let (audit, accounts) = (data.audit(output)?, data.open_or_make(output).await?);
        // Nobody likes to choose a password for nothing.
        if is_there(&accounts, &self.name).await? {
            bail!(AccountsError::UserExists(self.name));
        }
        let password = new_password(self.name.as_str())?;
        check_new_password(&password, data.min_password()?)?;
        let new = NewUser {
            admin: self.admin,
            limits: self.limits.into(),
        };
        accounts.add_user(&self.name, &password, new).await?;
        audit.note("user add", changed(&self.name))?;
        output.note(&format!("added user {}", self.name));
        Ok(())
    }
}

impl UserSetArgs {
    /// The options, as they were given.
    fn in_words(&self) -> String {
        let switches = [
            (self.admin, "admin"),
            (self.no_admin, "no-admin"),
            (self.disable, "disable"),
            (self.enable, "enable"),
        ];
        let given = switches.into_iter().filter(|(is_given, _)| *is_given);
        let mut words: Vec<_> = given.map(|(_, name)| name.to_owned()).collect();
        for (name, limit) in [("quota", self.quota), ("files", self.files)] {
            match limit {
                Some(Limit::AtMost(number)) => words.push(format!("{name}={number}")),
                Some(Limit::Unlimited) => words.push(format!("{name}=none")),
                None => {}
            }
        }
        words.join(" ")
    }

    async fn run(self, data: &DataDirArgs, output: Output) -> anyhow::Result<()> {
        let (audit, accounts) = (data.audit(output)?, data.open().await?);
        let switch = |on: bool, off: bool| (on || off).then_some(on);
        let change = UserChange {
            admin: switch(self.admin, self.no_admin),
            disabled: switch(self.disable, self.enable),
            bytes: self.quota,
            files: self.files,
        };
        accounts.set_user(&self.name, change).await?;
        let to = self.in_words();
        let set = AuditedChange {
            to: Some(&to),
            ..changed(&self.name)
        };
        audit.note("user set", set)?;
        output.note(&format!("changed user {}", self.name));
        Ok(())
    }
}

async fn list(accounts: &Accounts, output: Output) -> anyhow::Result<()> {
    let users = accounts.users().await?;
    let objects: Vec<_> = users.iter().map(UserObject::from).collect();
    output.list(&objects, || {
        let rows: Vec<_> = users.iter().map(row).collect();
        table(["NAME", "ROLE", "QUOTA", "FILES", "STATE"], &rows)
    })?;
    Ok(())
}

fn row(user: &accounts::User) -> [String; 5] {
    let name = user.name.to_string();
    let role = if user.admin { "admin" } else { "user" };
    let [quota, files] = data::columns(user.limits);
    let state = if user.disabled { "disabled" } else { "" };
    [name, role.into(), quota, files, state.into()]
}

impl From<&accounts::User> for UserObject {
    fn from(user: &accounts::User) -> Self {
        Self {
            name: user.name.clone(),
            admin: user.admin,
            disabled: user.disabled,
            quota: user.limits.bytes,
            files: user.limits.files,
            created: user.created,
        }
    }
}

async fn passwd(data: &DataDirArgs, name: &UserName, output: Output) -> anyhow::Result<()> {
    let (audit, accounts) = (data.audit(output)?, data.open().await?);
    if !is_there(&accounts, name).await? {
        bail!(AccountsError::NoSuchUser(name.clone()));
    }
    let password = new_password(name.as_str())?;
    check_new_password(&password, data.min_password()?)?;
    accounts.set_password(name, &password).await?;
    audit.note("user passwd", changed(name))?;
    output.note(&format!("changed the password of user {name}"));
    Ok(())
}

async fn remove(data: &DataDirArgs, name: &UserName, output: Output) -> anyhow::Result<()> {
    let (audit, accounts) = (data.audit(output)?, data.open().await?);
    let removed = accounts.remove_user(name).await;
    if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
        audit.note("user remove", changed(name))?;
    }
    if removed? {
        output.note(&format!(
            "removed user {name}; its files are in the data directory, under removed/"
        ));
    } else {
        output.note(&format!("removed user {name}, who had no files"));
    }
    Ok(())
}

fn changed(name: &UserName) -> AuditedChange<'_> {
    AuditedChange {
        user: Some(name.as_str()),
        ..AuditedChange::default()
    }
}

async fn is_there(accounts: &Accounts, name: &UserName) -> anyhow::Result<bool> {
    let users = accounts.users().await?;
    Ok(users.iter().any(|user| user.name == *name))
}

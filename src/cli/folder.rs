//! `haul folder`: shared folders, and who may do what in them.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::accounts;
use crate::accounts::{Accounts, AccountsError, FolderName, UserName};
use crate::cli::audit::AuditedChange;
use crate::cli::data;
use crate::cli::data::{DataDirArgs, NewLimits};
use crate::cli::output::Output;
use crate::cli::table::table;
use crate::storage::Rights;

/// Manage shared folders, on the server's machine
#[derive(Debug, Args)]
pub(super) struct FolderArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(subcommand)]
    command: FolderCommand,
}

#[derive(Debug, Subcommand)]
enum FolderCommand {
    Add(FolderAddArgs),
    /// List the folders with their limits and members
    List,
    Grant(FolderGrantArgs),
    Revoke(FolderRevokeArgs),
    /// Remove a folder, and move its files to removed/ in the data directory
    Remove(FolderNamedArgs),
}

/// Add a folder, which no user sees until it is granted
#[derive(Debug, Args)]
struct FolderAddArgs {
    /// 1 to 32 lower-case letters, digits, ".", "_" or "-"
    folder: FolderName,
    #[command(flatten)]
    limits: NewLimits,
}

/// Give a user rights in a folder, in place of earlier ones
#[derive(Debug, Args)]
struct FolderGrantArgs {
    /// The folder
    folder: FolderName,
    /// The user
    user: UserName,
    /// "r" (list, read), "rw" (everything), "drop" (put files without seeing any), or some of
    /// list,read,write,overwrite,delete
    rights: Rights,
}

/// Take all rights in a folder from a user
#[derive(Debug, Args)]
struct FolderRevokeArgs {
    /// The folder
    folder: FolderName,
    /// The user
    user: UserName,
}

#[derive(Debug, Args)]
struct FolderNamedArgs {
    /// The folder
    folder: FolderName,
}

/// A folder as `--json` shows it.
#[derive(Debug, Serialize)]
struct FolderObject {
    name: FolderName,
    quota: Option<u64>,
    files: Option<u64>,
    created: jiff::Timestamp,
    members: Vec<MemberObject>,
}

/// A member as `--json` shows it.
#[derive(Debug, Serialize)]
struct MemberObject {
    user: UserName,
    rights: Vec<String>,
}

impl FolderArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        if let FolderCommand::List = self.command {
            return list(&self.data.open().await?, output).await;
        }
        let audit = self.data.audit(output)?;
        let accounts = match self.command {
            FolderCommand::Add(_) => self.data.open_or_make(output).await?,
            _ => self.data.open().await?,
        };
        match self.command {
            FolderCommand::Add(add) => {
                accounts.add_folder(&add.folder, add.limits.into()).await?;
                audit.note("folder add", changed(&add.folder, None))?;
                output.note(&format!(
                    "added folder {0}; let users see it with `haul folder grant {0} USER RIGHTS`",
                    add.folder
                ));
            }
            FolderCommand::List => {}
            FolderCommand::Grant(FolderGrantArgs {
                folder,
                user,
                rights,
            }) => {
                accounts.grant(&folder, &user, rights).await?;
                let to = rights.to_string();
                let granted = AuditedChange {
                    to: Some(&to),
                    ..changed(&folder, Some(&user))
                };
                audit.note("folder grant", granted)?;
                output.note(&format!("user {user} has the rights {rights} in /{folder}"));
            }
            FolderCommand::Revoke(FolderRevokeArgs { folder, user }) => {
                accounts.revoke(&folder, &user).await?;
                audit.note("folder revoke", changed(&folder, Some(&user)))?;
                output.note(&format!("user {user} no longer sees /{folder}"));
            }
            FolderCommand::Remove(FolderNamedArgs { folder }) => {
                let removed = accounts.remove_folder(&folder).await;
                if let Ok(_) | Err(AccountsError::FilesLeftBehind { .. }) = removed {
                    audit.note("folder remove", changed(&folder, None))?;
                }
                say_removed(&folder, removed?, output);
            }
        }
        Ok(())
    }
}

fn changed<'a>(folder: &'a FolderName, user: Option<&'a UserName>) -> AuditedChange<'a> {
    AuditedChange {
        folder: Some(folder.as_str()),
        user: user.map(UserName::as_str),
        ..AuditedChange::default()
    }
}

async fn list(accounts: &Accounts, output: Output) -> anyhow::Result<()> {
    let folders = accounts.folders().await?;
    let objects: Vec<_> = folders.iter().map(FolderObject::from).collect();
    output.list(&objects, || {
        let rows: Vec<_> = folders.iter().map(row).collect();
        table(["NAME", "QUOTA", "FILES", "MEMBERS"], &rows)
    })?;
    Ok(())
}

fn row(folder: &accounts::Folder) -> [String; 4] {
    let [quota, files] = data::columns(folder.limits);
    let member = |member: &accounts::FolderMember| format!("{}={}", member.user, member.rights);
    let members: Vec<_> = folder.members.iter().map(member).collect();
    [folder.name.to_string(), quota, files, members.join(" ")]
}

impl From<&accounts::Folder> for FolderObject {
    fn from(folder: &accounts::Folder) -> Self {
        let member = |member: &accounts::FolderMember| MemberObject {
            user: member.user.clone(),
            rights: member.rights.names(),
        };
        Self {
            name: folder.name.clone(),
            quota: folder.limits.bytes,
            files: folder.limits.files,
            created: folder.created,
            members: folder.members.iter().map(member).collect(),
        }
    }
}

fn say_removed(folder: &FolderName, had_files: bool, output: Output) {
    if had_files {
        output.note(&format!(
            "removed folder {folder}; its files are in the data directory, under removed/"
        ));
    } else {
        output.note(&format!("removed folder {folder}, which had no files"));
    }
}

//! `haul folder` and `haul admin folder`: shared folders and the rights in them.

use clap::{Args, Subcommand};

use crate::accounts::{FolderName, UserName};
use crate::cli::administration::{Administration, FolderMemberObject, FolderObject};
use crate::cli::data;
use crate::cli::data::{DataDirArgs, NewLimits};
use crate::cli::local_administration::{DataUse, LocalAdministration};
use crate::cli::output::{Output, safe};
use crate::cli::table::table;
use crate::storage::Rights;

/// Manage shared folders, on the server's machine
///
/// The server may run or not. `haul admin folder` does the same on a server elsewhere.
#[derive(Debug, Args)]
pub(super) struct FolderArgs {
    #[command(flatten)]
    data: DataDirArgs,
    #[command(subcommand)]
    command: FolderCommand,
}

/// What `haul folder` and `haul admin folder` do.
#[derive(Debug, Subcommand)]
pub(super) enum FolderCommand {
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
pub(super) struct FolderAddArgs {
    /// 1 to 32 lower-case letters, digits, ".", "_" or "-"
    folder: FolderName,
    #[command(flatten)]
    limits: NewLimits,
}

/// Give a user rights in a folder, in place of earlier ones
#[derive(Debug, Args)]
pub(super) struct FolderGrantArgs {
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
pub(super) struct FolderRevokeArgs {
    /// The folder
    folder: FolderName,
    /// The user
    user: UserName,
}

/// A folder that exists.
#[derive(Debug, Args)]
pub(super) struct FolderNamedArgs {
    /// The folder
    folder: FolderName,
}

impl FolderArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let data_use = match self.command {
            FolderCommand::Add(_) => DataUse::Create,
            FolderCommand::List => DataUse::Read,
            _ => DataUse::Change,
        };
        let local = LocalAdministration::open(&self.data, data_use, output).await?;
        self.command.run(&local, "haul folder", output).await
    }
}

impl FolderCommand {
    /// `program` is the command to type for a further step.
    pub(super) async fn run(
        self,
        target: &impl Administration,
        program: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        match self {
            Self::Add(FolderAddArgs { folder, limits }) => {
                target.add_folder(&folder, limits.into()).await?;
                output.note(&format!(
                    "added folder {folder}; let users see it with `{program} grant {folder} USER RIGHTS`"
                ));
            }
            Self::List => return list(target, output).await,
            Self::Grant(FolderGrantArgs {
                folder,
                user,
                rights,
            }) => {
                target.grant(&folder, &user, rights).await?;
                output.note(&format!("user {user} has the rights {rights} in /{folder}"));
            }
            Self::Revoke(FolderRevokeArgs { folder, user }) => {
                target.revoke(&folder, &user).await?;
                output.note(&format!("user {user} no longer sees /{folder}"));
            }
            Self::Remove(FolderNamedArgs { folder }) => {
                let had_files = target.remove_folder(&folder).await?;
                note_removed(&folder, had_files, output);
            }
        }
        Ok(())
    }
}

async fn list(target: &impl Administration, output: Output) -> anyhow::Result<()> {
    let folders = target.folders().await?;
    output.list(&folders, || {
        let rows: Vec<_> = folders.iter().map(row).collect();
        table(["NAME", "QUOTA", "FILES", "MEMBERS"], &rows)
    })
}

fn row(folder: &FolderObject) -> [String; 4] {
    let [quota, files] = data::columns(folder.quota, folder.files);
    let mut members: Vec<_> = folder.members.iter().map(describe).collect();
    if folder.more {
        members.push("and more".into());
    }
    [
        safe(&folder.name).into_owned(),
        quota,
        files,
        safe(&members.join(" ")).into_owned(),
    ]
}

fn describe(member: &FolderMemberObject) -> String {
    let names = member.rights.join(",");
    // As `grant` takes them: "rw" is shorter than all their names.
    let rights = names.parse::<Rights>().map(|rights| rights.to_string());
    format!("{}={}", member.user, rights.unwrap_or(names))
}

fn note_removed(folder: &FolderName, had_files: bool, output: Output) {
    if had_files {
        output.note(&format!(
            "removed folder {folder}; its files are in the data directory, under removed/"
        ));
    } else {
        output.note(&format!("removed folder {folder}, which had no files"));
    }
}

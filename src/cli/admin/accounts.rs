//! `haul admin user`, `folder` and `token`: what `haul user`, `folder` and `token` do on the server's
//! machine, from afar.

use clap::{Args, Subcommand};

use crate::accounts::UserName;
use crate::cli::folder::FolderCommand;
use crate::cli::remote_session::RemoteSession;
use crate::cli::token;
use crate::cli::token::NewTokenArgs;
use crate::cli::user::{NewPasswordSource, UserCommand};

/// Manage the users of the server
///
/// The password of a new user is asked for on a terminal; otherwise it is the first line of standard
/// input. `haul admin users` lists what the users take up.
#[derive(Debug, Args)]
pub(super) struct AdminUserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

/// Manage the shared folders of the server
#[derive(Debug, Args)]
pub(super) struct AdminFolderArgs {
    #[command(subcommand)]
    command: FolderCommand,
}

/// Manage the tokens of other users
///
/// `haul token` is about your own tokens.
#[derive(Debug, Args)]
pub(super) struct AdminTokenArgs {
    #[command(subcommand)]
    command: AdminTokenCommand,
}

#[derive(Debug, Subcommand)]
enum AdminTokenCommand {
    /// Make a token for a user
    Add {
        /// The user that it logs in as
        name: UserName,
        #[command(flatten)]
        options: NewTokenArgs,
    },
    /// List the tokens of a user by number and label
    List {
        /// The user
        name: UserName,
    },
    /// Revoke a token, and end the sessions that it opened
    Remove {
        /// The user
        name: UserName,
        /// Its number, as `haul admin token list` shows it
        id: u64,
    },
}

impl AdminUserArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let source = NewPasswordSource::Input;
        self.command
            .run(&remote.client, source, remote.output)
            .await
    }
}

impl AdminFolderArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let RemoteSession { client, output, .. } = remote;
        self.command.run(client, "haul admin folder", *output).await
    }
}

impl AdminTokenArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let RemoteSession { client, output, .. } = remote;
        match self.command {
            AdminTokenCommand::Add { name, options } => options.add(client, &name, *output).await,
            AdminTokenCommand::List { name } => token::list(client, &name, *output).await,
            AdminTokenCommand::Remove { name, id } => {
                token::remove(client, &name, id, *output).await
            }
        }
    }
}

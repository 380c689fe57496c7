//! `haul admin`: what operators ask of a server that runs, as users with the admin right.

mod accounts;
mod drain;
mod kick;
mod log_level;
mod logs;
mod reload;
mod sessions;
mod users;

use clap::{Args, Subcommand};

use crate::cli::remote_session::RemoteSession;
use crate::client::RetryPolicy;

/// Administer a running server, as a user with the admin right
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    Sessions(sessions::AdminSessionsArgs),
    Users(users::AdminUsersArgs),
    User(accounts::AdminUserArgs),
    Folder(accounts::AdminFolderArgs),
    Token(accounts::AdminTokenArgs),
    Kick(kick::AdminKickArgs),
    Reload(reload::AdminReloadArgs),
    Drain(drain::AdminDrainArgs),
    Logs(logs::AdminLogsArgs),
    LogLevel(log_level::AdminLogLevelArgs),
}

impl AdminArgs {
    /// What is done if the connection is lost.
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        match &self.command {
            AdminCommand::Logs(logs) if logs.is_following() => RetryPolicy::FOR_EVER,
            _ => RetryPolicy::NEVER,
        }
    }

    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        match self.command {
            AdminCommand::Sessions(command) => command.run(remote).await,
            AdminCommand::Users(command) => command.run(remote).await,
            AdminCommand::User(command) => command.run(remote).await,
            AdminCommand::Folder(command) => command.run(remote).await,
            AdminCommand::Token(command) => command.run(remote).await,
            AdminCommand::Kick(command) => command.run(remote).await,
            AdminCommand::Reload(command) => command.run(remote).await,
            AdminCommand::Drain(command) => command.run(remote).await,
            AdminCommand::Logs(command) => command.run(remote).await,
            AdminCommand::LogLevel(command) => command.run(remote).await,
        }
    }
}

//! `haul admin`: what operators ask of a server that runs, as users with the admin right.

mod sessions;

use clap::{Args, Subcommand};

use super::remote::Remote;

/// Look at a server and run it, as a user with the admin right
#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    Sessions(sessions::Sessions),
}

impl Admin {
    pub(super) async fn run(self, remote: &Remote) -> anyhow::Result<()> {
        match self.command {
            AdminCommand::Sessions(command) => command.run(remote).await,
        }
    }
}

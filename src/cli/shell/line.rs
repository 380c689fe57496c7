//! The commands of the shell.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::remote_command::RemoteCommand;

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(
    name = "haul",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    max_term_width = 100
)]
pub(super) struct ShellLine {
    #[command(subcommand)]
    pub(super) command: ShellCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ShellCommand {
    #[command(flatten)]
    Remote(RemoteCommand),
    /// Change the current directory on the server; to the home if none is named
    Cd {
        #[arg(value_name = "PATH")]
        path: Option<String>,
    },
    /// Print the current directory on the server
    Pwd,
    /// Change the local current directory; to your home if none is named
    Lcd {
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// List a local directory
    Lls {
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Print the local current directory
    Lpwd,
    /// List the commands, or explain one
    Help {
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Leave
    #[command(visible_aliases = ["exit", "bye"])]
    Quit,
}

//! The options of every subcommand.

use std::path::PathBuf;

use clap::Args;

use crate::cli::help::CONNECTION;
use crate::cli::profile_name::ProfileName;
use crate::cli::trust::TrustOptions;

/// The options of every subcommand.
#[derive(Debug, Clone, Args)]
pub(super) struct GlobalOptions {
    /// The profile for this command, see `haul profiles`; `HAUL_PROFILE` sets it for a shell
    #[arg(long, short = 'P', global = true, help_heading = CONNECTION, value_name = "NAME")]
    pub(super) profile: Option<ProfileName>,
    /// The server, such as `haul://alice@host:9000`; the default is that of the current profile
    #[arg(
        long,
        global = true,
        help_heading = CONNECTION,
        env = "HAUL_SERVER",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) server: Option<String>,
    /// Log in with the password in the first line of FILE, or in `HAUL_PASSWORD`
    #[arg(
        long,
        global = true,
        help_heading = CONNECTION,
        value_name = "FILE",
        conflicts_with = "token_file"
    )]
    pub(super) password_file: Option<PathBuf>,
    /// Log in with the token in the first line of FILE
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) trust: TrustOptions,
    /// Print results and errors as JSON, one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print only results and errors
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Show no progress bar
    #[arg(long, global = true)]
    pub(super) no_progress: bool,
}

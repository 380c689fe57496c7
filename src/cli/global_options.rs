//! The options of every subcommand.

use std::path::PathBuf;

use clap::Args;

use crate::cli::trust::TrustOptions;

/// The options of every subcommand.
#[derive(Debug, Clone, Args)]
pub(super) struct GlobalOptions {
    /// The server, such as `haul://alice@host:9000`. Without it, the one that `haul connect`
    /// remembers.
    #[arg(
        long,
        global = true,
        env = "HAUL_SERVER",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) server: Option<String>,
    /// A file whose first line is the password; `HAUL_PASSWORD` holds the password itself.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "token_file"
    )]
    pub(super) password_file: Option<PathBuf>,
    /// A file whose first line is a token, to log in without a password.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) trust: TrustOptions,
    /// Print results as JSON, one object per line.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print nothing but results and errors.
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Show no progress bars.
    #[arg(long, global = true)]
    pub(super) no_progress: bool,
}

//! `haul check-config`: whether the server would start with a configuration, and what it says.

use std::path::PathBuf;

use clap::Args;

use crate::cli::output::Output;
use crate::config;
use crate::config::Config;

/// Check a configuration file together with the environment, and print every setting as it comes
/// out.
#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    /// The file; without one, only the environment is checked.
    file: Option<PathBuf>,
}

impl CheckConfigArgs {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let config = Config::load(self.file.as_deref(), config::environment())?;
        output.result(&config, ToString::to_string)?;
        let what = self.file.map(|file| file.display().to_string());
        output.note(&format!(
            "{}: the configuration is right",
            what.as_deref().unwrap_or("environment")
        ));
        Ok(())
    }
}

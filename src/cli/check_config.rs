//! `haul check-config`: whether the server would start with a configuration, and all its settings.

use std::path::PathBuf;

use clap::Args;

use crate::cli::output::Output;
use crate::config;
use crate::config::{Config, ConfigError, ConfigProblem};
use crate::server;
use crate::server::TlsError;

/// Check a configuration file together with the environment, and print every setting
///
/// Reports everything that is wrong: unknown settings, invalid values, misspelt variables, and files of
/// [tls] that cannot be used.
#[derive(Debug, Args)]
pub(super) struct CheckConfigArgs {
    /// The configuration file; without it, only the environment is checked
    file: Option<PathBuf>,
}

impl CheckConfigArgs {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let (config, mut problems) = Config::check(self.file.as_deref(), config::environment());
        problems.extend(check_tls_files(&config));
        if let Some(error) = ConfigError::new(problems) {
            return Err(error.into());
        }
        output.result(&config, ToString::to_string)?;
        for variable in config::unknown_variables(config::environment()) {
            output.note(&format!(
                "environment variable {variable}: haul ignores it, because it is not a setting"
            ));
        }
        let source = self.file.map(|file| file.display().to_string());
        output.note(&format!(
            "{}: the configuration is valid",
            source.as_deref().unwrap_or("environment")
        ));
        Ok(())
    }
}

/// All files of `[tls]` that cannot be read, or why their contents cannot be used.
fn check_tls_files(config: &Config) -> Vec<ConfigProblem> {
    let tls = &config.tls;
    let files = [&tls.certificate, &tls.key, &tls.client_ca];
    let unreadable = files.into_iter().flatten().filter_map(|path| {
        let source = std::fs::read(path).err()?;
        let path = path.clone();
        Some(ConfigProblem::File(
            TlsError::Read { path, source }.to_string(),
        ))
    });
    let unreadable: Vec<_> = unreadable.collect();
    if !unreadable.is_empty() {
        return unreadable;
    }
    match server::check_certificate(config) {
        // A certificate without a key was reported with its line.
        Ok(()) | Err(TlsError::HalfSet) => Vec::new(),
        Err(error) => vec![ConfigProblem::File(error.to_string())],
    }
}

//! The data directory that a command works on, and what the lists say about it.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::accounts::{Accounts, Limit};
use crate::cli::audit::AuditArgs;
use crate::cli::output::{Output, size};
use crate::config;
use crate::config::{Config, ConfigError, LogSettings};
use crate::storage::SpaceLimits;
use crate::telemetry::MachineAudit;

/// Which data directory.
#[derive(Debug, Args)]
pub(super) struct DataDirArgs {
    /// The data directory; the default is that of the configuration, or ./haul-data
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "HAUL_DATA",
        hide_env_values = true
    )]
    data: Option<PathBuf>,
    /// The server's configuration file, which names the data directory
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "HAUL_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
}

impl DataDirArgs {
    /// The path of the directory, whether it is there or not.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        let given = self.data.as_ref();
        if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
            return Ok(path.clone());
        }
        let config = Config::load(self.config.as_deref(), config::environment())?;
        Ok(config.server.data)
    }

    /// The settings of the server that uses the directory; the default ones if the configuration is
    /// that of another server or cannot be read.
    fn server_settings(&self) -> anyhow::Result<Result<Config, ConfigError>> {
        let data = self.path()?;
        Ok(
            Config::load(self.config.as_deref(), config::environment()).map(|config| {
                let named = &config.server.data;
                let default = Config::default();
                if *named != default.server.data && *named != data {
                    default
                } else {
                    config
                }
            }),
        )
    }

    /// The audit of the server that uses the directory. Open it before anything is changed.
    pub(super) fn audit(&self, output: Output) -> anyhow::Result<AuditArgs> {
        let log = match self.server_settings()? {
            Ok(config) => config.log,
            Err(error) => {
                output.note(&format!("the audit log will not have this change: {error}"));
                LogSettings::default()
            }
        };
        Ok(AuditArgs(MachineAudit::open(&log, &self.path()?)?))
    }

    /// The fewest characters of a new password, as that server has it.
    pub(super) fn min_password(&self) -> anyhow::Result<usize> {
        let config = self.server_settings()?.unwrap_or_default();
        Ok(config.auth.min_password)
    }

    /// The path of the directory, which holds accounts.
    pub(super) fn with_accounts(&self) -> anyhow::Result<PathBuf> {
        let path = self.path()?;
        if !path.join("haul.db").exists() {
            bail!(
                "{} has no accounts; name the data directory with --data, \
                 or create one with `haul user add`",
                path.display()
            );
        }
        Ok(path)
    }

    /// The accounts in the directory.
    pub(super) async fn open(&self) -> anyhow::Result<Accounts> {
        Ok(Accounts::open(&self.with_accounts()?).await?)
    }

    /// The accounts in the directory, which is made if it is missing, so that there can be users
    /// before the server's first start.
    pub(super) async fn open_or_make(&self, output: Output) -> anyhow::Result<Accounts> {
        let path = self.path()?;
        if !path.exists() {
            output.note(&format!("making the data directory {}", path.display()));
        }
        Ok(Accounts::open(&path).await?)
    }
}

/// Limits of something new.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct NewLimits {
    /// The quota, such as 500MB or 10GiB; the default is no quota
    #[arg(long, value_name = "SIZE")]
    quota: Option<Limit>,
    /// The limit of files and directories; the default is 1000 and one for each 4 KiB of the quota
    #[arg(long, value_name = "N", value_parser = files)]
    files: Option<Limit>,
}

impl From<NewLimits> for SpaceLimits {
    fn from(new: NewLimits) -> Self {
        let number = |limit| match limit {
            Some(Limit::AtMost(number)) => Some(number),
            Some(Limit::Unlimited) | None => None,
        };
        Self {
            bytes: number(new.quota),
            files: number(new.files),
        }
    }
}

/// Reads a limit of files: `none` or a number, but no size.
pub(super) fn files(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit::Unlimited);
    }
    let number = text.parse().map(Limit::AtMost);
    number.map_err(|_| "expected \"none\" or a whole number of files".to_owned())
}

/// The limits as the columns of a list: bytes, and files with directories.
pub(super) fn columns(bytes: Option<u64>, files: Option<u64>) -> [String; 2] {
    let limits = [bytes.map(size), files.map(|files| files.to_string())];
    limits.map(|limit| limit.unwrap_or_else(|| "-".into()))
}

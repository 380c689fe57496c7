//! The arguments of `haul serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config;
use crate::config::{Config, ConfigError};

/// Serves files until it is told to stop
///
/// With nothing given it works at once: it makes its data directory, a certificate and an `admin`
/// account, and says the password and what to type next. Where standard error is no terminal, the
/// password is in the file `admin-password` of the data directory instead.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "HAUL_DATA")]
    pub(super) data: Option<PathBuf>,
    /// The address and port to listen on
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<SocketAddr>,
}

impl ServeArgs {
    /// The configuration as the file, the environment and the flags say now.
    pub(super) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref(), config::environment())?;
        if let Some(data) = &self.data {
            config.server.data.clone_from(data);
        }
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        Ok(config)
    }
}

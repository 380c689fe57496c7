//! The arguments of `haul serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config;
use crate::config::{Config, ConfigError};

/// Run the server until it is stopped
///
/// It needs no configuration: at the first start it creates its data directory, a certificate and an
/// `admin` account, and prints the password and the command to connect with. If standard error is not a
/// terminal, it writes the password to the file `admin-password` in the data directory instead.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "HAUL_DATA")]
    pub(super) data: Option<PathBuf>,
    /// The address and port to listen on
    #[arg(long, value_name = "ADDR", value_parser = config::parse_address)]
    pub(super) listen: Option<SocketAddr>,
}

impl ServeArgs {
    /// Loads the configuration from the file, the environment and the flags.
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

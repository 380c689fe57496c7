//! The configuration: the settings of the file and the environment, checked and typed.
//!
//! Each setting is declared once, as a field of a section. Its name in the file, its
//! environment variable and its valid values follow from that field. [`Config::load`] reads the
//! configuration, and [`Config::reloaded`] applies a new one to a running server.

mod environment;
mod file;
mod load;
mod problem;
mod reload;
mod sections;
mod setting;
mod suggestion;
mod value;

pub use crate::config::environment::{environment, unknown_variables};
pub use crate::config::problem::{ConfigError, ConfigProblem, SettingOrigin};
pub use crate::config::reload::ReloadedConfig;
pub use crate::config::sections::{
    AuthSettings, Config, LimitSettings, LogFormat, LogSettings, NetworkSettings, OpsSettings,
    ServerSettings, TlsSettings,
};
pub use crate::config::value::{is_log_level, parse_address};

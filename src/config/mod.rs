//! The configuration: what stands in the file and the environment, checked and typed in one step.
//!
//! Every setting is declared once, as a field of a section. Its name in the file, its variable in
//! the environment and what it may hold all follow from there.

mod load;
mod value;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::DEFAULT_PORT;

pub use load::{ConfigError, Origin, environment};

/// Every setting of the server. Shown as the text of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the server listens and keeps its data.
    pub server: Server,
    /// What one client and all of them may take.
    pub limits: Limits,
    /// How users log in.
    pub auth: Auth,
    /// What is logged, how, and where to.
    pub log: Log,
}

/// `[server]`: where the server listens and keeps its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The address and port to listen on.
    #[serde(deserialize_with = "value::address")]
    pub listen: SocketAddr,
    /// The data directory.
    #[serde(deserialize_with = "value::path")]
    pub data: PathBuf,
}

/// `[limits]`: what one client and all of them may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    #[serde(deserialize_with = "value::count")]
    pub sessions: usize,
    /// Downloads that send at once in one session.
    #[serde(deserialize_with = "value::count")]
    pub transfers: usize,
    /// Unfinished requests of one session.
    #[serde(deserialize_with = "value::count")]
    pub requests: usize,
    /// Threads that wait for the disk.
    #[serde(deserialize_with = "value::count")]
    pub disk_threads: usize,
    /// From accept to a successful login.
    #[serde(with = "value::duration")]
    pub login_timeout: Duration,
    /// From the first byte of a frame to its last, before login.
    #[serde(with = "value::duration")]
    pub frame_timeout_before_login: Duration,
    /// From the first byte of a frame to its last, after login.
    #[serde(with = "value::duration")]
    pub frame_timeout: Duration,
    /// For the peer to take what is written to it.
    #[serde(with = "value::duration")]
    pub write_timeout: Duration,
    /// For running transfers to finish on shutdown.
    #[serde(with = "value::duration")]
    pub drain_timeout: Duration,
    /// How long an upload that was cut off is kept.
    #[serde(with = "value::duration")]
    pub keep_uploads: Duration,
    /// Such uploads that are kept of one user.
    #[serde(deserialize_with = "value::count")]
    pub kept_uploads: usize,
    /// Bytes of the disk that uploads leave free.
    #[serde(with = "value::bytes")]
    pub free_space_floor: u64,
}

/// `[auth]`: how users log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether other machines may log in without encryption.
    #[serde(deserialize_with = "value::switch")]
    pub plaintext_logins: bool,
    /// Passwords checked at once.
    #[serde(deserialize_with = "value::count")]
    pub hashing_slots: usize,
}

/// `[log]`: what is logged, how, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Which events, in the syntax of `tracing_subscriber::EnvFilter`.
    #[serde(deserialize_with = "value::log_level")]
    pub level: String,
    /// The shape of a line.
    pub format: LogFormat,
    /// The path of daily log files, to which the date is added.
    #[serde(with = "value::optional_path")]
    pub file: Option<PathBuf>,
    /// Daily log files that are kept.
    #[serde(deserialize_with = "value::count")]
    pub keep_files: usize,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON anywhere else.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            data: "haul-data".into(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            transfers: 16,
            requests: 64,
            disk_threads: 64,
            login_timeout: Duration::from_secs(15),
            frame_timeout_before_login: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
            keep_uploads: Duration::from_secs(24 * 3600),
            kept_uploads: 100,
            free_space_floor: 64 * 1024 * 1024,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            plaintext_logins: false,
            hashing_slots: 2,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Auto,
            file: None,
            keep_files: 14,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(toml::to_string(self).map_err(|_| fmt::Error)?.trim_end())
    }
}

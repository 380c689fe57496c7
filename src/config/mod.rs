//! The configuration: what stands in the file and the environment, checked and typed in one step.
//!
//! Every setting is declared once, as a field of a section. Its name in the file, its variable in
//! the environment and what it may hold all follow from there.

mod load;
mod reload;
mod value;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::protocol::DEFAULT_PORT;

pub use crate::config::load::{ConfigError, Origin, environment};
pub use crate::config::reload::Reload;
pub use crate::config::value::is_log_level;

/// The port of health, metrics and the status page unless told otherwise.
const DEFAULT_OPS_PORT: u16 = DEFAULT_PORT + 1;

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
    /// Who may connect at all.
    pub network: Network,
    /// How connections are encrypted.
    pub tls: Tls,
    /// What operators look at.
    pub ops: Ops,
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
    /// Whether a new data directory must be a mounted volume.
    #[serde(deserialize_with = "value::switch")]
    pub require_mount: bool,
    /// Whether datagrams are taken, on the same port.
    #[serde(deserialize_with = "value::switch")]
    pub datagrams: bool,
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
    /// Connections at once from one IPv4 address or IPv6 /64; 0 is no limit.
    #[serde(deserialize_with = "value::count_or_zero")]
    pub sessions_per_address: usize,
    /// Sessions of one user at once; 0 is no limit.
    #[serde(deserialize_with = "value::count_or_zero")]
    pub sessions_per_user: usize,
    /// For a session in which nothing is asked and nothing moves; `None` is for ever.
    #[serde(with = "value::duration_or_zero")]
    pub idle_timeout: Option<Duration>,
    /// Frames that a connection may send before one of them has logged in.
    #[serde(deserialize_with = "value::count")]
    pub frames_before_login: usize,
    /// Files that are read at once only to be hashed; 0 is one for each core.
    #[serde(deserialize_with = "value::count_or_zero")]
    pub hashing: usize,
    /// Bytes of files a second, each way, in all sessions of one user together.
    #[serde(with = "value::rate")]
    pub bandwidth_per_user: Option<u64>,
    /// From the first bytes of a TLS handshake to its end.
    #[serde(with = "value::duration")]
    pub handshake_timeout: Duration,
    /// Messages and offers of one user a second, on the average of a few seconds; 0 is no limit.
    #[serde(deserialize_with = "value::count_or_zero")]
    pub messages_per_user: usize,
    /// How long messages are kept, for `history` and for who is away: a time in which the server
    /// runs.
    #[serde(with = "value::duration")]
    pub keep_messages: Duration,
    /// Messages that are kept at most; of more, the oldest go of those who have said the most.
    #[serde(deserialize_with = "value::count")]
    pub kept_messages: usize,
    /// How long a file that is offered can be accepted.
    #[serde(with = "value::duration")]
    pub keep_offers: Duration,
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
    /// Logins with a password that are being checked or wait for it.
    #[serde(deserialize_with = "value::count")]
    pub waiting_logins: usize,
    /// Failed logins of one account from one address before the next has to wait.
    #[serde(deserialize_with = "value::count")]
    pub attempts: usize,
    /// The longest that the next attempt has to wait.
    #[serde(with = "value::duration")]
    pub back_off: Duration,
    /// Failed logins on one connection before it is closed.
    #[serde(deserialize_with = "value::count")]
    pub attempts_per_connection: usize,
    /// Whether people make accounts for themselves, by `register` of the classic dialect.
    #[serde(deserialize_with = "value::switch")]
    pub register: bool,
    /// Bytes in the home of an account that was made so; 0 is no limit.
    #[serde(with = "value::bytes")]
    pub register_quota: u64,
}

/// `[network]`: who may connect at all, by address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Networks that may connect; all if there are none.
    #[serde(deserialize_with = "value::networks")]
    pub allow: Vec<IpNet>,
    /// Networks that may not, whatever `allow` says.
    #[serde(deserialize_with = "value::networks")]
    pub deny: Vec<IpNet>,
    /// Balancers, which say by a PROXY header whom they connect.
    #[serde(deserialize_with = "value::networks")]
    pub proxies: Vec<IpNet>,
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
    /// The path of daily files with the audit alone: logins and changes.
    #[serde(with = "value::optional_path")]
    pub audit_file: Option<PathBuf>,
    /// Daily files with the audit that are kept.
    #[serde(deserialize_with = "value::count")]
    pub keep_audit_files: usize,
}

/// `[tls]`: how connections are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// A PEM file with the server's certificate and those between it and its authority; without
    /// one, the server makes its own.
    #[serde(with = "value::optional_path")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the key of the certificate.
    #[serde(with = "value::optional_path")]
    pub key: Option<PathBuf>,
    /// A PEM file with the authorities whose certificates log clients in.
    #[serde(with = "value::optional_path")]
    pub client_ca: Option<PathBuf>,
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

/// `[ops]`: health, metrics and the status page, over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ops {
    /// The address and port of it; `None` is nowhere.
    #[serde(with = "value::optional_address")]
    pub listen: Option<SocketAddr>,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: Some((Ipv4Addr::LOCALHOST, DEFAULT_OPS_PORT).into()),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            data: "haul-data".into(),
            require_mount: false,
            datagrams: true,
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
            frame_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(6),
            keep_uploads: Duration::from_hours(24),
            kept_uploads: 100,
            free_space_floor: 64 * 1024 * 1024,
            sessions_per_address: 64,
            sessions_per_user: 100,
            idle_timeout: Some(Duration::from_mins(30)),
            frames_before_login: 32,
            hashing: 0,
            bandwidth_per_user: None,
            handshake_timeout: Duration::from_secs(10),
            messages_per_user: 100,
            keep_messages: Duration::from_hours(2160),
            kept_messages: 1_000_000,
            keep_offers: Duration::from_hours(168),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            plaintext_logins: false,
            hashing_slots: 2,
            waiting_logins: 64,
            attempts: 5,
            back_off: Duration::from_mins(1),
            attempts_per_connection: 10,
            register: false,
            register_quota: 1 << 30,
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
            audit_file: None,
            keep_audit_files: 90,
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(toml::to_string(self).map_err(|_| fmt::Error)?.trim_end())
    }
}

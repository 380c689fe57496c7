//! The sections of the configuration, with their settings and defaults.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::protocol::DEFAULT_PORT;

/// The default port of health checks, metrics and the status page.
const DEFAULT_OPS_PORT: u16 = DEFAULT_PORT + 1;

/// All settings of the server. Its text form is a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and the data directory.
    pub server: ServerSettings,
    /// The limits for one client and for all together.
    pub limits: LimitSettings,
    /// The rules of logins.
    pub auth: AuthSettings,
    /// The content, format and destination of the log.
    pub log: LogSettings,
    /// The networks that may connect.
    pub network: NetworkSettings,
    /// The encryption of connections.
    pub tls: TlsSettings,
    /// The operators' address.
    pub ops: OpsSettings,
}

/// `[server]`: the address and the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// The address and port of the listener.
    #[serde(deserialize_with = "crate::config::value::address")]
    pub listen: SocketAddr,
    /// The data directory.
    #[serde(deserialize_with = "crate::config::value::path")]
    pub data: PathBuf,
    /// Whether a new data directory must be a mounted volume.
    #[serde(deserialize_with = "crate::config::value::switch")]
    pub require_mount: bool,
    /// Whether the server accepts datagrams on the same port.
    #[serde(deserialize_with = "crate::config::value::switch")]
    pub datagrams: bool,
    /// Whether the answer to a search for servers contains the name of this machine.
    #[serde(deserialize_with = "crate::config::value::switch")]
    pub announce_name: bool,
}

/// `[limits]`: the limits for one client and for all together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// The most connections at once.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub sessions: usize,
    /// The most downloads of a session that send at once.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub transfers: usize,
    /// The most unfinished requests of a session.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub requests: usize,
    /// The number of threads for disk operations.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub disk_threads: usize,
    /// The time from accept to a successful login.
    #[serde(with = "crate::config::value::duration")]
    pub login_timeout: Duration,
    /// The time from the first byte of a frame to its last, before the login.
    #[serde(with = "crate::config::value::duration")]
    pub frame_timeout_before_login: Duration,
    /// The time from the first byte of a frame to its last, after the login.
    #[serde(with = "crate::config::value::duration")]
    pub frame_timeout: Duration,
    /// The time for the peer to receive a frame.
    #[serde(with = "crate::config::value::duration")]
    pub write_timeout: Duration,
    /// The time for running transfers to finish during a shutdown.
    #[serde(with = "crate::config::value::duration")]
    pub drain_timeout: Duration,
    /// How long the server keeps an interrupted upload.
    #[serde(with = "crate::config::value::duration")]
    pub keep_uploads: Duration,
    /// The most interrupted uploads that the server keeps for a user.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub kept_uploads: usize,
    /// The bytes of disk space that uploads leave free.
    #[serde(with = "crate::config::value::bytes")]
    pub free_space_floor: u64,
    /// The most connections at once from one IPv4 address or IPv6 /64; 0 is no limit.
    #[serde(deserialize_with = "crate::config::value::count_or_zero")]
    pub sessions_per_address: usize,
    /// The most sessions of a user at once; 0 is no limit.
    #[serde(deserialize_with = "crate::config::value::count_or_zero")]
    pub sessions_per_user: usize,
    /// The time after which an idle session is closed; `None` is no limit.
    #[serde(with = "crate::config::value::duration_or_zero")]
    pub idle_timeout: Option<Duration>,
    /// The most frames of a connection before its login.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub frames_before_login: usize,
    /// The most files that `hash` reads at once; 0 is one per core.
    #[serde(deserialize_with = "crate::config::value::count_or_zero")]
    pub hashing: usize,
    /// The bytes of files per second in each direction, for all sessions of a user together.
    #[serde(with = "crate::config::value::rate")]
    pub bandwidth_per_user: Option<u64>,
    /// The time from the first byte of a TLS handshake to its end.
    #[serde(with = "crate::config::value::duration")]
    pub handshake_timeout: Duration,
    /// The messages and offers of a user per second, averaged over a few seconds; 0 is no limit.
    #[serde(deserialize_with = "crate::config::value::count_or_zero")]
    pub messages_per_user: usize,
    /// How long messages are kept for `history` and for absent users, in run time of the server.
    #[serde(with = "crate::config::value::duration")]
    pub keep_messages: Duration,
    /// The most messages that are kept. Above it, the oldest messages of the senders with the most
    /// are deleted.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub kept_messages: usize,
    /// How long an offer can be accepted.
    #[serde(with = "crate::config::value::duration")]
    pub keep_offers: Duration,
}

/// `[auth]`: the rules of logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSettings {
    /// Whether other hosts may log in without encryption.
    #[serde(deserialize_with = "crate::config::value::switch")]
    pub plaintext_logins: bool,
    /// The most passwords that are checked at once.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub hashing_slots: usize,
    /// The most password logins that are being checked or wait for it.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub waiting_logins: usize,
    /// The failed logins of an account from one address before the next attempt is delayed.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub attempts: usize,
    /// The longest delay of an attempt.
    #[serde(with = "crate::config::value::duration")]
    pub back_off: Duration,
    /// The failed logins on a connection before it is closed.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub attempts_per_connection: usize,
    /// The fewest characters of a new password. Present passwords stay valid.
    #[serde(deserialize_with = "crate::config::value::count_or_zero")]
    pub min_password: usize,
    /// Whether clients may create accounts with `register` of the classic dialect.
    #[serde(deserialize_with = "crate::config::value::switch")]
    pub register: bool,
    /// The quota of the home of such an account, in bytes; 0 is no limit.
    #[serde(with = "crate::config::value::bytes")]
    pub register_quota: u64,
}

/// `[network]`: the networks that may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// The networks that may connect; all if the list is empty.
    #[serde(deserialize_with = "crate::config::value::networks")]
    pub allow: Vec<IpNet>,
    /// The networks that may not connect. This list overrides `allow`.
    #[serde(deserialize_with = "crate::config::value::networks")]
    pub deny: Vec<IpNet>,
    /// The load balancers, which send the client's address in a PROXY header.
    #[serde(deserialize_with = "crate::config::value::networks")]
    pub proxies: Vec<IpNet>,
}

/// `[log]`: the content, format and destination of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// The logged events, in the syntax of `tracing_subscriber::EnvFilter`.
    #[serde(deserialize_with = "crate::config::value::log_level")]
    pub level: String,
    /// The format of a line.
    #[serde(deserialize_with = "log_format")]
    pub format: LogFormat,
    /// The path of the log file. The files of earlier days have their date appended.
    #[serde(with = "crate::config::value::optional_path")]
    pub file: Option<PathBuf>,
    /// The number of daily log files that are kept.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub keep_files: usize,
    /// The path of the audit file, which only contains logins and changes. The files of earlier days
    /// have their date appended.
    #[serde(with = "crate::config::value::optional_path")]
    pub audit_file: Option<PathBuf>,
    /// The number of daily audit files that are kept.
    #[serde(deserialize_with = "crate::config::value::count")]
    pub keep_audit_files: usize,
}

/// `[tls]`: the encryption of connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// A PEM file with the server's certificate and its intermediate certificates. Without it, the
    /// server generates a certificate.
    #[serde(with = "crate::config::value::optional_path")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the private key of the certificate.
    #[serde(with = "crate::config::value::optional_path")]
    pub key: Option<PathBuf>,
    /// A PEM file with the authorities that issue client certificates.
    #[serde(with = "crate::config::value::optional_path")]
    pub client_ca: Option<PathBuf>,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON anywhere else.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

fn log_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LogFormat, D::Error> {
    let expected = "\"auto\", \"json\" or \"text\"";
    crate::config::value::text(deserializer, expected, |text| match text {
        "auto" => Some(LogFormat::Auto),
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    })
}

/// `[ops]`: the HTTP address of health checks, metrics and the status page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpsSettings {
    /// The address and port; `None` disables it.
    #[serde(with = "crate::config::value::optional_address")]
    pub listen: Option<SocketAddr>,
}

impl Default for OpsSettings {
    fn default() -> Self {
        Self {
            listen: Some((Ipv4Addr::LOCALHOST, DEFAULT_OPS_PORT).into()),
        }
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            data: "haul-data".into(),
            require_mount: false,
            datagrams: true,
            announce_name: false,
        }
    }
}

impl Default for LimitSettings {
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

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            plaintext_logins: false,
            hashing_slots: 2,
            waiting_logins: 64,
            attempts: 5,
            back_off: Duration::from_mins(1),
            attempts_per_connection: 10,
            min_password: 8,
            register: false,
            register_quota: 1 << 30,
        }
    }
}

impl Default for LogSettings {
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

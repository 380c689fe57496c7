//! Loading: the file, then the environment, each setting checked where it stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Spanned, Table, Value};

use crate::config::Config;

/// The configuration can not be used as it is. One line, for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can not be read.
    #[error("can not read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or not made of sections.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where it stands.
        origin: Origin,
        /// What is wrong there.
        message: String,
    },
    /// There is no such section or setting.
    #[error("{origin}: there is no setting {key}; did you mean one of: {known}?")]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// Its full name, such as `limits.sesions`.
        key: String,
        /// The names that would be right there.
        known: String,
    },
    /// The setting can not have that value.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// Its full name, such as `limits.sessions`.
        key: String,
        /// What it is and what it should be.
        message: String,
    },
}

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file, at a line (from 1).
    File(PathBuf, usize),
    /// In the environment, in the variable of this name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl Config {
    /// The defaults, changed by `file`, changed by those variables of `env` that name a setting:
    /// `HAUL_<SECTION>_<KEY>`. Other variables are left alone.
    ///
    /// # Errors
    /// [`ConfigError`] if the file can not be read, or a setting is unknown or has a wrong value.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = match file {
            Some(path) => settings_of_file(path)?,
            None => Vec::new(),
        };
        let defaults = defaults();
        settings
            .extend(env.filter_map(|(name, text)| setting_of_variable(&name, &text, &defaults)));
        let mut changed = Table::new();
        for setting in settings {
            setting.check(&defaults)?;
            setting.apply(&mut changed);
        }
        Ok(typed(changed))
    }
}

/// The variables of this process. Those that are not UTF-8 can only be refused, not be a setting;
/// they are read as well as can be.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// One setting as it was found, before it is known to exist.
struct Setting {
    origin: Origin,
    section: String,
    key: String,
    value: Value,
}

impl Setting {
    /// Refuses it if it is unknown, or if its value is wrong, whatever the others are.
    fn check(&self, defaults: &Table) -> Result<(), ConfigError> {
        let known = match defaults.get(&self.section) {
            Some(Value::Table(section)) if section.contains_key(&self.key) => None,
            Some(Value::Table(section)) => Some(section),
            _ => Some(defaults),
        };
        let key = format!("{}.{}", self.section, self.key);
        if let Some(known) = known {
            return Err(ConfigError::Unknown {
                origin: self.origin.clone(),
                key,
                known: known
                    .keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        let mut alone = Table::new();
        self.apply(&mut alone);
        match alone.try_into::<Config>() {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::Value {
                origin: self.origin.clone(),
                key,
                message: error.message().trim_end().into(),
            }),
        }
    }

    fn apply(&self, table: &mut Table) {
        let section = table
            .entry(&self.section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(section) = section {
            section.insert(self.key.clone(), self.value.clone());
        }
    }
}

/// The defaults by section and key; also the list of all that is known.
fn defaults() -> Table {
    Table::try_from(Config::default()).expect("the defaults can be written as TOML")
}

fn typed(settings: Table) -> Config {
    let config = settings.try_into();
    config.expect("settings that are right one by one are right together")
}

fn settings_of_file(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    type Keys = BTreeMap<Spanned<String>, Value>;
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    let origin = |at: usize| {
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        Origin::File(path.into(), line)
    };
    let sections: BTreeMap<String, Keys> =
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            origin: origin(error.span().map_or(0, |span| span.start)),
            message: error.message().trim_end().into(),
        })?;
    let mut settings = Vec::new();
    for (section, keys) in sections {
        for (key, value) in keys {
            settings.push(Setting {
                origin: origin(key.span().start),
                section: section.clone(),
                key: key.into_inner(),
                value,
            });
        }
    }
    Ok(settings)
}

/// The setting that a variable stands for, if it stands for one: it begins with `HAUL_`, a section
/// and `_`. Numbers, switches and lists (with commas) are text there, so the default says what the
/// text is to be.
fn setting_of_variable(name: &str, text: &str, defaults: &Table) -> Option<Setting> {
    let rest = name.strip_prefix("HAUL_")?.to_lowercase();
    let (section, key) = defaults.keys().find_map(|section| {
        let key = rest.strip_prefix(section.as_str())?.strip_prefix('_')?;
        Some((section.clone(), key.to_owned()))
    })?;
    let parsed = match defaults[&section].get(&key) {
        Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => Some(Value::Array(items(text))),
        _ => None,
    };
    Some(Setting {
        origin: Origin::Environment(name.into()),
        section,
        key,
        value: parsed.unwrap_or_else(|| Value::String(text.into())),
    })
}

fn items(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.into())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Limits, LogFormat};

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("haul.toml");
        std::fs::write(&file, text).expect("written");
        Config::load(Some(&file), pairs(env)).map_err(|error| match error {
            ConfigError::Value {
                origin: Origin::File(_, line),
                key,
                message,
            } => {
                let origin = Origin::File("haul.toml".into(), line);
                ConfigError::Value {
                    origin,
                    key,
                    message,
                }
            }
            ConfigError::Unknown {
                origin: Origin::File(_, line),
                key,
                known,
            } => {
                let origin = Origin::File("haul.toml".into(), line);
                ConfigError::Unknown { origin, key, known }
            }
            other => other,
        })
    }

    fn pairs(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        env.iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
    }

    fn refusal(text: &str, env: &[(&str, &str)]) -> String {
        load(text, env).expect_err("refused").to_string()
    }

    /// Takes the `#` away from every line that is a setting.
    fn uncommented(text: &str) -> String {
        text.lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn every_file_in_config_loads_and_shows_every_default() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for file in std::fs::read_dir(directory).expect("a directory") {
            let path = file.expect("an entry").path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            let config = Config::load(Some(&path), std::iter::empty()).expect("loads");
            assert_eq!(config, Config::default(), "{}", path.display());
            let text = uncommented(&text);
            let config = load(&text, &[]).expect("loads when uncommented");
            assert_eq!(config, Config::default(), "{}", path.display());
            let shown: Table = text.parse().expect("TOML");
            let settings = |table: &Table| -> Vec<String> {
                let sections = table.iter();
                sections
                    .flat_map(|(section, keys)| {
                        let keys = keys.as_table().expect("a section").keys();
                        keys.map(move |key| format!("{section}.{key}"))
                    })
                    .collect()
            };
            assert_eq!(
                settings(&shown),
                settings(&defaults()),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn a_setting_of_the_file_beats_the_default_and_the_environment_beats_the_file() {
        let file = "[limits]
sessions = 7
transfers = 8
";
        let config = load(file, &[("HAUL_LIMITS_SESSIONS", "9")]).expect("right");
        assert_eq!(config.limits.sessions, 9);
        assert_eq!(config.limits.transfers, 8);
        assert_eq!(config.limits.requests, Limits::default().requests);
    }

    #[test]
    fn every_kind_of_setting_can_come_from_the_environment() {
        let env = [
            ("HAUL_SERVER_LISTEN", "[::]:9001"),
            ("HAUL_SERVER_DATA", "/srv/haul"),
            ("HAUL_LIMITS_LOGIN_TIMEOUT", "1m 30s"),
            ("HAUL_AUTH_PLAINTEXT_LOGINS", "true"),
            ("HAUL_LIMITS_BANDWIDTH_PER_USER", "1536KiB"),
            ("HAUL_LOG_LEVEL", "warn,haul=debug"),
            ("HAUL_LOG_FORMAT", "json"),
            ("HAUL_LOG_FILE", "7"),
            ("HAUL_LIMITS_IDLE_TIMEOUT", "0s"),
            ("HAUL_LIMITS_SESSIONS_PER_ADDRESS", "0"),
            (
                "HAUL_NETWORK_DENY",
                "10.0.0.0/8, 2001:db8::1 ,::ffff:192.0.2.0/120",
            ),
        ];
        let config = Config::load(None, pairs(&env)).expect("right");
        assert_eq!(config.server.listen.to_string(), "[::]:9001");
        assert_eq!(config.server.data, Path::new("/srv/haul"));
        assert_eq!(config.limits.login_timeout, Duration::from_secs(90));
        assert!(config.auth.plaintext_logins);
        assert_eq!(config.limits.bandwidth_per_user, Some(1536 * 1024));
        assert_eq!(config.log.level, "warn,haul=debug");
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.log.file.as_deref(), Some(Path::new("7")));
        assert_eq!(config.limits.idle_timeout, None);
        assert_eq!(config.limits.sessions_per_address, 0);
        let denied = config.network.deny.iter().map(ToString::to_string);
        let denied: Vec<_> = denied.collect();
        assert_eq!(denied, ["10.0.0.0/8", "2001:db8::1/128", "192.0.2.0/24"]);
    }

    #[test]
    fn an_unknown_setting_is_refused_by_its_name() {
        assert_eq!(
            refusal("[auth]\nhashing_slots = 1\nhashing_slot = 1\n", &[]),
            "haul.toml, line 3: there is no setting auth.hashing_slot; \
             did you mean one of: attempts, attempts_per_connection, \
             back_off, hashing_slots, plaintext_logins, \
             register, register_quota, waiting_logins?"
        );
        assert_eq!(
            refusal("[limit]\nsessions = 1\n", &[]),
            "haul.toml, line 2: there is no setting limit.sessions; \
             did you mean one of: auth, limits, log, network, ops, server, tls?"
        );
        assert_eq!(
            refusal("", &[("HAUL_AUTH_PASSWORD", "hunter2")]),
            "environment variable HAUL_AUTH_PASSWORD: there is no setting auth.password; \
             did you mean one of: attempts, attempts_per_connection, back_off, hashing_slots, \
             plaintext_logins, register, register_quota, waiting_logins?"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_setting_and_what_it_should_be() {
        for (text, message) in [
            (
                "[limits]\nsessions = \"many\"",
                "haul.toml, line 2: limits.sessions: \
                 invalid type: string \"many\", expected a whole number from 1 to 1000000",
            ),
            (
                "[limits]\n\nsessions = 0",
                "haul.toml, line 3: limits.sessions: \
                 invalid value: integer `0`, expected a whole number from 1 to 1000000",
            ),
            (
                "limits.write_timeout = 30",
                "haul.toml, line 1: limits.write_timeout: \
                 invalid type: integer `30`, expected a duration such as \"30s\", at most \"8760h\"",
            ),
            (
                "limits.write_timeout = \"-3s\"",
                "haul.toml, line 1: limits.write_timeout: \
                 invalid value: string \"-3s\", expected a duration such as \"30s\", at most \"8760h\"",
            ),
            (
                "auth.plaintext_logins = \"yes\"",
                "haul.toml, line 1: auth.plaintext_logins: \
                 invalid type: string \"yes\", expected true or false",
            ),
            (
                "server.listen = \"9000\"",
                "haul.toml, line 1: server.listen: \
                 invalid value: string \"9000\", expected an address and port such as \"0.0.0.0:9000\"",
            ),
            (
                "server.data = \"\"",
                "haul.toml, line 1: server.data: invalid value: string \"\", expected a path",
            ),
            (
                "limits.sessions_per_user = -1",
                "haul.toml, line 1: limits.sessions_per_user: \
                 invalid value: integer `-1`, expected a whole number from 0 to 1000000",
            ),
            (
                "limits.idle_timeout = \"never\"",
                "haul.toml, line 1: limits.idle_timeout: invalid value: string \"never\", \
                 expected a duration such as \"30m\", at most \"8760h\", or \"0s\" for none",
            ),
            (
                "network.allow = [\"10.0.0.0/33\"]",
                "haul.toml, line 1: network.allow: invalid value: string \"10.0.0.0/33\", \
                 expected a list of networks such as \
                 [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.1\"]",
            ),
            (
                "log.level = \"inof\"",
                "haul.toml, line 1: log.level: invalid value: string \"inof\", \
                 expected error, warn, info, debug or trace, \
                 with parts that differ after a comma such as \"info,haul::server=debug\"",
            ),
            (
                "limits.bandwidth_per_user = \"10\"",
                "haul.toml, line 1: limits.bandwidth_per_user: invalid value: string \"10\", \
                 expected bytes a second such as \"10MiB\", from \"64KiB\" to \"1TiB\", \
                 or \"\" for no limit",
            ),
            (
                "log.format = \"xml\"",
                "haul.toml, line 1: log.format: \
                 unknown variant `xml`, expected one of `auto`, `json`, `text`",
            ),
        ] {
            assert_eq!(refusal(text, &[]), message);
        }
        assert_eq!(
            refusal("", &[("HAUL_LIMITS_SESSIONS", "many")]),
            "environment variable HAUL_LIMITS_SESSIONS: limits.sessions: \
             invalid type: string \"many\", expected a whole number from 1 to 1000000"
        );
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        let message = refusal("[limits]\nsessions = = 3\n", &[]);
        assert!(message.contains("haul.toml, line 2: "), "{message}");
        let message = refusal("[server]\n[server]\n", &[]);
        assert!(message.contains("haul.toml, line 2: "), "{message}");
        let message = refusal("limits = 3\n", &[]);
        assert!(message.contains("haul.toml, line 1: "), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::load(Some(Path::new("no/haul.toml")), std::iter::empty());
        let message = error.expect_err("missing").to_string();
        assert!(message.starts_with("can not read the configuration no/haul.toml: "));
    }

    #[test]
    fn what_is_printed_loads_again_and_holds_no_secret() {
        let env = [
            ("HAUL_PASSWORD", "hunter2"),
            ("HAUL_ADMIN_PASSWORD_FILE", "/run/secrets/hunter2"),
            ("HAUL_SERVER", "haul://alice:hunter2@host"),
            ("HAUL_LOG_FILE", "haul.log"),
            ("HAUL_LIMITS_BANDWIDTH_PER_USER", "70001"),
            ("HAUL_LIMITS_IDLE_TIMEOUT", "0s"),
            ("HAUL_NETWORK_ALLOW", "10.0.0.0/8,2001:db8::/32"),
        ];
        let config = Config::load(None, pairs(&env)).expect("right");
        let printed = config.to_string();
        assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
        assert_eq!(load(&printed, &[]).expect("right"), config);
    }

    #[test]
    fn a_refused_secret_is_not_shown() {
        let message = refusal("", &[("HAUL_AUTH_PASSWORD", "hunter2")]);
        assert!(!message.contains("hunter2"), "{message}");
        let message = refusal("[auth]\npassword = \"hunter2\"", &[]);
        assert!(!message.contains("hunter2"), "{message}");
    }
}

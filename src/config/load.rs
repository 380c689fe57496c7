//! Loads the configuration: first the file, then the environment. Each setting is checked on its own,
//! so that an error names its line or variable.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Spanned, Table, Value};

use crate::config::sections::Config;

/// An error in the configuration. Its text is one line for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a setting outside a section.
    #[error("{origin}: {message}")]
    Syntax {
        /// The position of the setting.
        origin: SettingOrigin,
        /// The description of the error.
        message: String,
    },
    /// The section or setting does not exist.
    #[error("{origin}: there is no setting {key}; did you mean one of: {known}?")]
    Unknown {
        /// The position of the setting.
        origin: SettingOrigin,
        /// The full name, such as `limits.sesions`.
        key: String,
        /// The valid names.
        known: String,
    },
    /// The value is invalid.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// The position of the setting.
        origin: SettingOrigin,
        /// The full name, such as `limits.sessions`.
        key: String,
        /// The value and the expected ones.
        message: String,
    },
}

/// The position of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOrigin {
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// The environment variable with this name.
    Environment(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl Config {
    /// Loads the defaults, overridden by `file`, overridden by the variables in `env` whose name is
    /// `HAUL_<SECTION>_<KEY>`. Ignores other variables.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or a setting is unknown or invalid.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = match file {
            Some(path) => read_file(path)?,
            None => Vec::new(),
        };
        let defaults = defaults();
        settings
            .extend(env.filter_map(|(name, text)| setting_from_variable(&name, &text, &defaults)));
        let mut changed = Table::new();
        for setting in settings {
            setting.check(&defaults)?;
            setting.apply(&mut changed);
        }
        Ok(to_config(changed))
    }
}

/// The environment variables of this process. Invalid UTF-8 is replaced, because such a value is
/// either ignored or rejected.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// A setting as it was read, before it is checked.
struct LoadedSetting {
    origin: SettingOrigin,
    section: String,
    key: String,
    value: Value,
}

impl LoadedSetting {
    /// Fails if the setting is unknown or its value is invalid.
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

/// The defaults by section and key, which are also the list of all settings.
fn defaults() -> Table {
    Table::try_from(Config::default()).expect("the defaults can be written as TOML")
}

fn to_config(settings: Table) -> Config {
    let config = settings.try_into();
    config.expect("settings that are right one by one are right together")
}

fn read_file(path: &Path) -> Result<Vec<LoadedSetting>, ConfigError> {
    type Keys = BTreeMap<Spanned<String>, Value>;
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })?;
    let origin = |at: usize| {
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        SettingOrigin::File(path.into(), line)
    };
    let sections: BTreeMap<String, Keys> =
        toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            origin: origin(error.span().map_or(0, |span| span.start)),
            message: error.message().trim_end().into(),
        })?;
    let mut settings = Vec::new();
    for (section, keys) in sections {
        for (key, value) in keys {
            settings.push(LoadedSetting {
                origin: origin(key.span().start),
                section: section.clone(),
                key: key.into_inner(),
                value,
            });
        }
    }
    Ok(settings)
}

/// The setting of an environment variable, if its name starts with `HAUL_`, a section and `_`. The
/// type of the default decides whether the text is a number, a switch or a list with commas.
fn setting_from_variable(name: &str, text: &str, defaults: &Table) -> Option<LoadedSetting> {
    let rest = name.strip_prefix("HAUL_")?.to_lowercase();
    let (section, key) = defaults.keys().find_map(|section| {
        let key = rest.strip_prefix(section.as_str())?.strip_prefix('_')?;
        Some((section.clone(), key.to_owned()))
    })?;
    let parsed = match defaults[&section].get(&key) {
        Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
        Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
        Some(Value::Array(_)) => Some(Value::Array(split_list(text))),
        _ => None,
    };
    Some(LoadedSetting {
        origin: SettingOrigin::Environment(name.into()),
        section,
        key,
        value: parsed.unwrap_or_else(|| Value::String(text.into())),
    })
}

fn split_list(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.into())).collect()
}

#[cfg(test)]
mod tests;

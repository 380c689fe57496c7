//! A setting as it was read, before it is checked, and the list of all settings.

use toml::{Table, Value};

use crate::config::problem::{ConfigProblem, SettingOrigin};
use crate::config::sections::Config;
use crate::config::suggestion::{did_you_mean, near_names};

/// The most characters of a value that a message repeats.
const MAX_SHOWN_CHARS: usize = 60;

/// The advice for a name that resembles no known one.
pub(super) const LIST_OF_SETTINGS: &str = "`haul check-config` without a file lists all settings";

/// A setting as it was read, before it is checked.
pub(super) struct LoadedSetting {
    pub(super) origin: SettingOrigin,
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: Value,
}

impl LoadedSetting {
    /// The full name, such as `limits.sessions`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// Fails if the setting is unknown or its value is invalid.
    pub(super) fn check(&self, known: &KnownSettings) -> Result<(), ConfigProblem> {
        if known.default(&self.section, &self.key).is_none() {
            return Err(self.problem(known.unknown(&self.name())));
        }
        let mut alone = Table::new();
        self.apply(&mut alone);
        alone.try_into::<Config>().map(drop).map_err(|error| {
            let reason = error.message().trim_end();
            self.problem(format!(
                "{} is {}, but {reason}",
                self.name(),
                shown(&self.value)
            ))
        })
    }

    pub(super) fn apply(&self, table: &mut Table) {
        let section = table
            .entry(&self.section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(section) = section {
            section.insert(self.key.clone(), self.value.clone());
        }
    }

    pub(super) fn problem(&self, message: String) -> ConfigProblem {
        ConfigProblem::Setting {
            origin: self.origin.clone(),
            message,
        }
    }
}

/// A value as the file has it, on one line and not too long.
fn shown(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// All settings, with their defaults.
pub(super) struct KnownSettings(Table);

impl KnownSettings {
    pub(super) fn new() -> Self {
        let defaults = Table::try_from(Config::default());
        Self(defaults.expect("the defaults can be written as TOML"))
    }

    pub(super) fn default(&self, section: &str, key: &str) -> Option<&Value> {
        self.0.get(section)?.get(key)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Section and key of every setting.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(section, keys)| {
            let keys = keys.as_table().into_iter().flat_map(Table::keys);
            keys.map(move |key| (section.as_str(), key.as_str()))
        })
    }

    /// The sections that have the setting `key`.
    pub(super) fn sections_with(&self, key: &str) -> Vec<&str> {
        let settings = self.settings().filter(|(_, known)| *known == key);
        settings.map(|(section, _)| section).collect()
    }

    /// The message about a setting that does not exist.
    pub(super) fn unknown(&self, name: &str) -> String {
        let key = name.rsplit('.').next().unwrap_or(name);
        let known: Vec<_> = self
            .settings()
            .map(|(section, key)| (key, format!("{section}.{key}")))
            .collect();
        let elsewhere = known.iter().filter(|(known, _)| *known == key);
        let mut names: Vec<_> = elsewhere.map(|(_, name)| name.as_str()).collect();
        if names.is_empty() {
            names = near_names(name, known.iter().map(|(_, name)| name.as_str()));
        }
        names.truncate(3);
        let advice = did_you_mean(&names, LIST_OF_SETTINGS);
        format!("there is no setting {name}{advice}")
    }
}

//! Reads the settings of environment variables.

use std::ffi::OsString;

use toml::Value;

use crate::config::problem::{ConfigProblem, SettingOrigin};
use crate::config::setting::{KnownSettings, LIST_OF_SETTINGS, LoadedSetting};
use crate::config::suggestion::{did_you_mean, near_names};

/// The variables of haul that are not settings of the server.
const OTHER_VARIABLES: &[&str] = &[
    "HAUL_ADMIN_PASSWORD_FILE",
    "HAUL_CA",
    "HAUL_CERT",
    "HAUL_CONFIG",
    "HAUL_DATA",
    "HAUL_FINGERPRINT",
    "HAUL_KEY",
    "HAUL_PASSWORD",
    "HAUL_SERVER",
];

/// The environment variables of this process. Invalid UTF-8 is replaced, because such a value is
/// either ignored or rejected.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// The variables whose names start with `HAUL_`, but that haul does not know. They are not refused:
/// deployment scripts use such names for their own purposes, and Kubernetes sets some for a service.
#[must_use]
pub fn unknown_variables(env: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let known = KnownSettings::new();
    let unknown = |name: &String| matches!(Variable::parse(name, "", &known), Variable::Unknown);
    let mut names: Vec<_> = env.map(|(name, _)| name).filter(unknown).collect();
    names.sort_unstable();
    names
}

/// The meaning of an environment variable.
pub(super) enum Variable {
    /// It is not for the server.
    Other,
    /// It starts with `HAUL_`, and resembles nothing that haul knows.
    Unknown,
    Setting(LoadedSetting),
    /// A misspelt setting.
    Misspelt(ConfigProblem),
}

impl Variable {
    /// Parses `HAUL_<SECTION>_<KEY>`.
    pub(super) fn parse(name: &str, text: &str, known: &KnownSettings) -> Self {
        let Some(rest) = name.strip_prefix("HAUL_") else {
            return Self::Other;
        };
        if OTHER_VARIABLES.contains(&name) {
            return Self::Other;
        }
        let rest = rest.to_lowercase();
        let in_section = known.sections().find_map(|section| {
            let key = rest.strip_prefix(section)?.strip_prefix('_')?;
            Some((section, key))
        });
        if let Some((section, key)) = in_section
            && let Some(default) = known.default(section, key)
        {
            return Self::Setting(LoadedSetting {
                origin: SettingOrigin::Environment(name.into()),
                section: section.into(),
                key: key.into(),
                value: value_like(default, text),
            });
        }
        let variables = known
            .settings()
            .map(|(section, key)| variable(section, key));
        let variables: Vec<_> = variables.collect();
        let other_variables = OTHER_VARIABLES.iter().copied();
        let close_names = near_names(
            name,
            variables.iter().map(String::as_str).chain(other_variables),
        );
        if close_names.is_empty() && in_section.is_none() {
            return Self::Unknown;
        }
        Self::Misspelt(ConfigProblem::Setting {
            origin: SettingOrigin::Environment(name.into()),
            message: format!(
                "there is no such setting{}",
                did_you_mean(&close_names, LIST_OF_SETTINGS)
            ),
        })
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("HAUL_{section}_{key}").to_uppercase()
}

/// The value of a variable. The type of the default decides whether the text is a number, a switch or
/// a list with commas; a text that is not stays a text, which the check of the setting rejects.
fn value_like(default: &Value, text: &str) -> Value {
    let parsed = match default {
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => Some(Value::Array(split_list(text))),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(text.into()))
}

fn split_list(text: &str) -> Vec<Value> {
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    items.map(|item| Value::String(item.into())).collect()
}

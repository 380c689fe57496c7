//! Loads the configuration: first the file, then the environment. Each setting is checked on its own,
//! so that all mistakes are found at once, and each is reported with its line or variable.

use std::path::Path;

use toml::{Table, Value};

use crate::config::environment::Variable;
use crate::config::file::ConfigFile;
use crate::config::problem::{ConfigError, ConfigProblem};
use crate::config::sections::Config;
use crate::config::setting::{KnownSettings, LoadedSetting};

impl Config {
    /// Loads the defaults, overridden by `file`, overridden by the variables in `env` whose name is
    /// `HAUL_<SECTION>_<KEY>`. Ignores other variables, unless they look like a misspelt setting.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or if settings are unknown or invalid.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (config, problems) = Self::check(file, env);
        ConfigError::new(problems).map_or(Ok(config), Err)
    }

    /// Loads what [`Self::load`] does, but skips the settings that are wrong, and returns what is
    /// wrong with them.
    pub fn check(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> (Self, Vec<ConfigProblem>) {
        let known = KnownSettings::new();
        let (mut settings, mut problems) = match file {
            Some(path) => {
                let file = ConfigFile::read(path, &known);
                (file.settings, file.problems)
            }
            None => Default::default(),
        };
        for (name, text) in env {
            match Variable::parse(&name, &text, &known) {
                Variable::Other | Variable::Unknown => {}
                Variable::Setting(setting) => settings.push(setting),
                Variable::Misspelt(problem) => problems.push(problem),
            }
        }
        let mut valid = Table::new();
        for setting in &settings {
            match setting.check(&known) {
                Ok(()) => setting.apply(&mut valid),
                Err(problem) => problems.push(problem),
            }
        }
        problems.extend(check_key_pair(&settings));
        problems.sort_by_key(ConfigProblem::line);
        (to_config(valid), problems)
    }
}

/// A certificate needs its key, and a key its certificate.
fn check_key_pair(settings: &[LoadedSetting]) -> Option<ConfigProblem> {
    let find = |key: &str| {
        let mut settings = settings.iter().rev();
        let found = settings.find(|setting| setting.section == "tls" && setting.key == key);
        found.filter(|setting| setting.value.as_str() != Some(""))
    };
    let (setting, missing) = match (find("certificate"), find("key")) {
        (Some(certificate), None) => (certificate, "tls.key"),
        (None, Some(key)) => (key, "tls.certificate"),
        _ => return None,
    };
    Some(setting.problem(format!(
        "{} is set, but {missing} is not; set both or neither",
        setting.name()
    )))
}

fn to_config(settings: Table) -> Config {
    let config = Value::Table(settings).try_into();
    config.expect("settings that are valid one by one are valid together")
}

#[cfg(test)]
mod tests;

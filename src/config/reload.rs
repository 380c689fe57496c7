//! Applying a new configuration to a running server.

use toml::{Table, Value};

use crate::config::sections::Config;
use crate::protocol::SettingChange;

/// The settings that take effect at once or for the next connection.
const LIVE: &[&str] = &[
    "server.announce_name",
    "limits.transfers",
    "limits.requests",
    "limits.login_timeout",
    "limits.frame_timeout_before_login",
    "limits.frame_timeout",
    "limits.write_timeout",
    "limits.drain_timeout",
    "limits.handshake_timeout",
    "limits.bandwidth_per_user",
    "limits.messages_per_user",
    "limits.keep_messages",
    "limits.kept_messages",
    "limits.sessions",
    "limits.sessions_per_address",
    "limits.sessions_per_user",
    "limits.idle_timeout",
    "limits.frames_before_login",
    "limits.keep_uploads",
    "limits.kept_uploads",
    "limits.keep_offers",
    "limits.free_space_floor",
    "auth.plaintext_logins",
    "auth.waiting_logins",
    "auth.attempts",
    "auth.back_off",
    "auth.attempts_per_connection",
    "auth.min_password",
    "auth.register",
    "auth.register_quota",
    "network.allow",
    "network.deny",
    "network.proxies",
    "tls.certificate",
    "tls.key",
    "tls.client_ca",
    "log.level",
];

/// The settings that need a restart, as does a setting that is in neither list.
#[cfg(test)]
const FIXED: &[&str] = &[
    "server.listen",
    "server.data",
    "server.require_mount",
    "server.datagrams",
    "limits.hashing",
    "limits.disk_threads",
    "auth.hashing_slots",
    "ops.listen",
    "log.format",
    "log.file",
    "log.keep_files",
    "log.audit_file",
    "log.keep_audit_files",
];

/// The result of applying a new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadedConfig {
    /// The configuration that is in force now.
    pub config: Config,
    /// The settings that have changed.
    pub changed: Vec<SettingChange>,
    /// The settings that would change after a restart.
    pub needs_restart: Vec<SettingChange>,
}

impl Config {
    /// This configuration with the settings of `new` that a running server can apply.
    ///
    /// # Panics
    /// Never: a valid configuration can be converted to TOML and back.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> ReloadedConfig {
        let (old, new) = (table_of(self), table_of(new));
        let mut reload = ReloadedConfig {
            config: self.clone(),
            changed: Vec::new(),
            needs_restart: Vec::new(),
        };
        let mut merged = old.clone();
        for (section, key, value) in settings(&new) {
            let before = old[section].get(key);
            if before == Some(value) {
                continue;
            }
            let change = SettingChange {
                setting: format!("{section}.{key}"),
                from: before.map_or(String::new(), Value::to_string),
                to: value.to_string(),
            };
            if LIVE.contains(&&*change.setting) {
                merged[section][key] = value.clone();
                reload.changed.push(change);
            } else {
                reload.needs_restart.push(change);
            }
        }
        reload.config = merged
            .try_into()
            .expect("settings that are valid one by one are valid together");
        reload
    }
}

fn table_of(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration can be written as TOML")
}

/// Section, key and value of every setting.
fn settings(table: &Table) -> impl Iterator<Item = (&str, &str, &Value)> {
    table.iter().flat_map(|(section, keys)| {
        let keys = keys.as_table().into_iter().flatten();
        keys.map(move |(key, value)| (section.as_str(), key.as_str(), value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_setting_is_classified_as_live_or_fixed() {
        let table = table_of(&Config::default());
        let existing: BTreeSet<_> = settings(&table)
            .map(|(section, key, _)| format!("{section}.{key}"))
            .collect();
        let known = LIVE.iter().chain(FIXED).map(ToString::to_string);
        let classified: BTreeSet<_> = known.collect();
        assert_eq!(
            classified.len(),
            LIVE.len() + FIXED.len(),
            "one is in both lists"
        );
        assert_eq!(existing, classified, "put a new setting into LIVE or FIXED");
    }

    #[test]
    fn changed_settings_are_applied_or_named_as_needing_a_restart() {
        let mut new = Config::default();
        new.limits.write_timeout = Duration::from_secs(7);
        new.limits.bandwidth_per_user = Some(100_000);
        new.log.level = "debug".into();
        new.server.data = "elsewhere".into();
        new.limits.disk_threads = 3;
        let reload = Config::default().reloaded(&new);
        let lines = |changes: &[SettingChange]| -> Vec<_> {
            let line = |change: &SettingChange| {
                format!("{} {} -> {}", change.setting, change.from, change.to)
            };
            changes.iter().map(line).collect()
        };
        assert_eq!(
            lines(&reload.changed),
            [
                r#"limits.bandwidth_per_user "" -> "100000""#,
                r#"limits.write_timeout "30s" -> "7s""#,
                r#"log.level "info" -> "debug""#
            ]
        );
        assert_eq!(
            lines(&reload.needs_restart),
            [
                "limits.disk_threads 64 -> 3",
                r#"server.data "haul-data" -> "elsewhere""#
            ]
        );
        let mut expected = Config::default();
        expected.limits.write_timeout = Duration::from_secs(7);
        expected.limits.bandwidth_per_user = Some(100_000);
        expected.log.level = "debug".into();
        assert_eq!(reload.config, expected);
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        let reload = Config::default().reloaded(&Config::default());
        assert_eq!(reload.config, Config::default());
        assert!(reload.changed.is_empty() && reload.needs_restart.is_empty());
    }
}

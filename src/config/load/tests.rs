use std::time::Duration;

use super::*;
use crate::config::{LimitSettings, LogFormat};

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("haul.toml");
    std::fs::write(&file, text).expect("written");
    Config::load(Some(&file), pairs(env)).map_err(|error| match error {
        ConfigError::Value {
            origin: SettingOrigin::File(_, line),
            key,
            message,
        } => {
            let origin = SettingOrigin::File("haul.toml".into(), line);
            ConfigError::Value {
                origin,
                key,
                message,
            }
        }
        ConfigError::Unknown {
            origin: SettingOrigin::File(_, line),
            key,
            known,
        } => {
            let origin = SettingOrigin::File("haul.toml".into(), line);
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
    assert_eq!(config.limits.requests, LimitSettings::default().requests);
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
             with exceptions after commas, such as \"info,haul::server=debug\"",
        ),
        (
            "limits.bandwidth_per_user = \"10\"",
            "haul.toml, line 1: limits.bandwidth_per_user: invalid value: string \"10\", \
             expected bytes per second such as \"10MiB\", from \"64KiB\" to \"1TiB\", \
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
fn invalid_toml_is_rejected_with_its_line() {
    let message = refusal("[limits]\nsessions = = 3\n", &[]);
    assert!(message.contains("haul.toml, line 2: "), "{message}");
    let message = refusal("[server]\n[server]\n", &[]);
    assert!(message.contains("haul.toml, line 2: "), "{message}");
    let message = refusal("limits = 3\n", &[]);
    assert!(message.contains("haul.toml, line 1: "), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("no/haul.toml")), std::iter::empty());
    let message = error.expect_err("missing").to_string();
    assert!(message.starts_with("cannot read the configuration no/haul.toml: "));
}

#[test]
fn the_printed_configuration_loads_again_and_has_no_secret() {
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

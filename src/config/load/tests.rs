use std::time::Duration;

use super::*;
use crate::config::unknown_variables;
use crate::config::{LimitSettings, LogFormat};

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("haul.toml");
    std::fs::write(&file, text).expect("written");
    Config::load(Some(&file), pairs(env))
}

fn pairs(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    env.iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
}

/// The problems of a configuration. The file is shown without its directory.
fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let error = load(text, env).expect_err("refused");
    let problems = error.problems().iter().map(ToString::to_string);
    problems
        .map(|problem| match problem.find("haul.toml") {
            Some(at) => problem[at..].to_owned(),
            None => problem,
        })
        .collect()
}

/// The only problem of a configuration.
fn refusal(text: &str, env: &[(&str, &str)]) -> String {
    let [problem] = problems(text, env).try_into().expect("one problem");
    problem
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
        assert_eq!(settings(&shown), all_settings(), "{}", path.display());
    }
}

fn all_settings() -> Vec<String> {
    let known = KnownSettings::new();
    let names = known.settings();
    names
        .map(|(section, key)| format!("{section}.{key}"))
        .collect()
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
fn an_unknown_setting_is_refused_with_the_names_that_are_close_to_it() {
    for (text, message) in [
        (
            "[auth]\nhashing_slots = 1\nhashing_slot = 1\n",
            "haul.toml, line 3: there is no setting auth.hashing_slot; \
             did you mean auth.hashing_slots?",
        ),
        (
            "[limits]\nlisten = \"127.0.0.1:0\"\n",
            "haul.toml, line 2: there is no setting limits.listen; \
             did you mean ops.listen or server.listen?",
        ),
        (
            "[auth]\npassword = \"hunter2\"\n",
            "haul.toml, line 2: there is no setting auth.password; \
             `haul check-config` without a file lists all settings",
        ),
        (
            "[limit]\nsessions = 1\ntransfers = 1\n",
            "haul.toml, line 1: there is no section [limit]; did you mean [limits]?",
        ),
        (
            "datagrams = false\n",
            "haul.toml, line 1: `datagrams` must stand under [server]",
        ),
        (
            "listen = \"127.0.0.1:0\"\n",
            "haul.toml, line 1: `listen` must stand under [ops] or [server]",
        ),
        (
            "limits = 3\n",
            "haul.toml, line 1: `limits` is a section; write [limits], and its settings below it",
        ),
    ] {
        assert_eq!(refusal(text, &[]), message);
    }
}

#[test]
fn a_misspelt_variable_is_refused_and_one_of_another_program_is_not() {
    for (name, message) in [
        ("HAUL_LIMIT_SESSIONS", "did you mean HAUL_LIMITS_SESSIONS?"),
        ("HAUL_LIMITS_SESIONS", "did you mean HAUL_LIMITS_SESSIONS?"),
        ("HAUL_CONFG", "did you mean HAUL_CONFIG?"),
        (
            "HAUL_AUTH_PASSWORD",
            "`haul check-config` without a file lists all settings",
        ),
    ] {
        assert_eq!(
            refusal("", &[(name, "hunter2")]),
            format!("environment variable {name}: there is no such setting; {message}")
        );
    }
    // Kubernetes sets such variables for a service that is called haul.
    let others = [
        ("HAUL_SERVICE_HOST", "10.0.0.1"),
        ("HAUL_PORT", "tcp://10.0.0.1:9000"),
        ("HAUL_PASSWORD", "hunter2"),
        ("PATH", "/bin"),
    ];
    load("", &others).expect("not settings");
    assert_eq!(
        unknown_variables(pairs(&others)),
        ["HAUL_PORT", "HAUL_SERVICE_HOST"]
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = "[limits]
sesions = 3
sessions = 0
transfers = = 4
[log]
level = \"inof\"
[network]
permit = []
";
    let env = [
        ("HAUL_AUTH_REGISTER", "maybe"),
        ("HAUL_OPS_LISTN", "127.0.0.1:0"),
    ];
    let found = problems(text, &env);
    let lines: Vec<_> = found
        .iter()
        .map(|problem| problem.split(": ").next().expect("a position"))
        .collect();
    assert_eq!(
        lines,
        [
            "haul.toml, line 2",
            "haul.toml, line 3",
            "haul.toml, line 4",
            "haul.toml, line 6",
            "haul.toml, line 8",
            "environment variable HAUL_OPS_LISTN",
            "environment variable HAUL_AUTH_REGISTER",
        ],
        "{found:#?}"
    );
    let (config, _) = Config::check(None, pairs(&env));
    assert_eq!(config, Config::default(), "invalid settings are skipped");
}

#[test]
fn a_certificate_and_its_key_are_set_together() {
    assert_eq!(
        refusal("[tls]\n\ncertificate = \"c.pem\"\n", &[]),
        "haul.toml, line 3: tls.certificate is set, but tls.key is not; set both or neither"
    );
    assert_eq!(
        refusal("", &[("HAUL_TLS_KEY", "k.pem")]),
        "environment variable HAUL_TLS_KEY: tls.key is set, but tls.certificate is not; \
         set both or neither"
    );
    let both = [("HAUL_TLS_KEY", "k.pem")];
    load("tls.certificate = \"c.pem\"", &both).expect("both are set");
}

#[test]
fn a_wrong_value_is_refused_with_the_setting_and_what_it_should_be() {
    let count = "must be a whole number from 1 to 1000000";
    let duration = "must be a duration such as \"30s\" or \"7d\", at most \"365d\"";
    for (name, value, reason) in [
        ("limits.sessions", "\"many\"", count),
        ("limits.sessions", "0", count),
        ("limits.write_timeout", "30", duration),
        ("limits.write_timeout", "\"-3s\"", duration),
        ("limits.keep_offers", "\"0d\"", duration),
        ("limits.keep_offers", "\"1 month\"", duration),
        ("limits.keep_offers", "\"53w\"", duration),
        ("auth.plaintext_logins", "\"yes\"", "must be true or false"),
        (
            "server.listen",
            "\"9000\"",
            "has no IP address; write 0.0.0.0:9000",
        ),
        (
            "server.listen",
            "\"127.0.0.1\"",
            "has no port; write 127.0.0.1:9000",
        ),
        (
            "server.listen",
            "\"0.0.0.0:99999\"",
            "port 99999 is over 65535",
        ),
        (
            "ops.listen",
            "\"localhost:9001\"",
            "must be an IP address and a port such as 0.0.0.0:9000",
        ),
        (
            "ops.listen",
            "9001",
            "must be an address in quotes, or \"\" for none",
        ),
        ("server.data", "\"\"", "must be a path"),
        (
            "limits.sessions_per_user",
            "-1",
            "must be a whole number from 0 to 1000000",
        ),
        (
            "limits.idle_timeout",
            "\"never\"",
            "must be a duration such as \"30m\", at most \"365d\", or \"0s\" for none",
        ),
        (
            "network.allow",
            "[\"10.0.0.0/33\"]",
            "\"10.0.0.0/33\" is not a network such as \"10.0.0.0/8\", \"2001:db8::/32\" \
             or \"192.0.2.1\"",
        ),
        (
            "log.level",
            "\"inof\"",
            "must be error, warn, info, debug or trace, \
             with exceptions after commas, such as \"info,haul::server=debug\"",
        ),
        (
            "limits.bandwidth_per_user",
            "\"10\"",
            "must be bytes per second such as \"10MiB\", from \"64KiB\" to \"1TiB\", \
             or \"\" for no limit",
        ),
        (
            "log.format",
            "\"xml\"",
            "must be \"auto\", \"json\" or \"text\"",
        ),
    ] {
        assert_eq!(
            refusal(&format!("\n{name} = {value}"), &[]),
            format!("haul.toml, line 2: {name} is {value}, but {reason}")
        );
    }
    assert_eq!(
        refusal("", &[("HAUL_LIMITS_SESSIONS", "many")]),
        format!(
            "environment variable HAUL_LIMITS_SESSIONS: limits.sessions is \"many\", but {count}"
        )
    );
}

#[test]
fn durations_may_have_days_and_weeks() {
    let text = "[limits]\nkeep_messages = \"2w\"\nkeep_offers = \"1d 12h\"\nkeep_uploads = \"36h\"";
    let config = load(text, &[]).expect("valid");
    let hours = Duration::from_hours;
    assert_eq!(config.limits.keep_messages, hours(14 * 24));
    assert_eq!(config.limits.keep_offers, hours(36));
    assert_eq!(config.limits.keep_uploads, hours(36));
    let printed = config.to_string();
    assert!(printed.contains("keep_messages = \"14d\""), "{printed}");
    assert!(printed.contains("keep_offers = \"36h\""), "{printed}");
}

#[test]
fn a_long_value_is_not_repeated_in_full() {
    let message = refusal(&format!("log.level = \"{}\"", "é".repeat(5000)), &[]);
    assert!(message.len() < 400, "{message}");
}

#[test]
fn invalid_toml_is_rejected_with_its_line() {
    for (text, line) in [
        ("[limits]\nsessions = = 3\n", 2),
        ("[server]\n[server]\n", 2),
        ("[limits\nsessions = 3\n", 1),
        ("[limits]\nsessions = 3\nsessions = 4\n", 3),
    ] {
        let message = refusal(text, &[]);
        let position = format!("haul.toml, line {line}: ");
        assert!(message.starts_with(&position), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
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

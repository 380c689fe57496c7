//! `docs/OPERATIONS.md` is true: what it says of the log and of the settings is in the code.

use std::collections::BTreeSet;
use std::path::Path;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// What stands in backquotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The text of every source file.
fn sources() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(sources).into_iter();
    let texts = files.filter_map(|file| {
        let file = file.expect("readable");
        let is_file = file.file_type().is_file();
        is_file.then(|| std::fs::read_to_string(file.path()).expect("text"))
    });
    texts.collect()
}

#[test]
fn every_line_of_the_log_that_is_explained_is_logged() {
    let (_, rest) = DOCUMENT.split_once("\n## The log\n").expect("a section");
    let section = rest.split("\n## ").next().expect("a text");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<_> = rows
        .filter_map(|row| row.split_once("` |"))
        .map(|(message, _)| message)
        .filter(|message| *message != "message")
        .collect();
    assert!(messages.len() > 20, "{messages:?}");
    let sources = sources();
    for message in messages {
        assert!(sources.contains(&format!("\"{message}\"")), "{message}");
    }
}

#[test]
fn every_setting_that_is_named_is_there() {
    let known = haul::config::Config::default().to_string();
    let known: toml::Table = known.parse().expect("TOML");
    let mut named = 0;
    for word in words(DOCUMENT) {
        let Some((section, key)) = word.split_once('.') else {
            continue;
        };
        if let Some(section) = known.get(section).and_then(toml::Value::as_table) {
            assert!(section.contains_key(key), "{word}");
            named += 1;
        }
    }
    assert!(named > 8, "only {named} are named");
}

#[test]
fn every_limit_and_every_setting_of_logins_networks_and_tls_is_explained() {
    let known = haul::config::Config::default().to_string();
    let known: toml::Table = known.parse().expect("TOML");
    let named: BTreeSet<_> = words(DOCUMENT).collect();
    for section in ["limits", "auth", "network", "tls"] {
        let keys = known[section].as_table().expect("a section");
        assert!(!keys.is_empty(), "{section}");
        for key in keys.keys() {
            let name = format!("{section}.{key}");
            assert!(named.contains(&*name), "{name}");
        }
    }
}

#[test]
fn the_settings_that_need_a_restart_are_those_of_the_code() {
    let code = include_str!("../../src/config/reload.rs");
    let (_, rest) = code
        .split_once("const FIXED: &[&str] = &[")
        .expect("a list");
    let (list, _) = rest.split_once("];").expect("an end");
    let fixed: BTreeSet<_> = list.split('"').skip(1).step_by(2).collect();
    let (_, rest) = DOCUMENT.split_once("These need a restart").expect("there");
    let paragraph = rest.split("\n\n").next().expect("a text");
    assert_eq!(words(paragraph).collect::<BTreeSet<_>>(), fixed);
    let (_, rest) = DOCUMENT.split_once("\n## Limits\n").expect("a section");
    let rows = rest.lines().filter_map(|line| line.strip_prefix("| `"));
    let with_star = rows.filter_map(|row| row.split_once("` * |"));
    let with_star: BTreeSet<_> = with_star.map(|(name, _)| name).collect();
    let limits = |name: &&str| name.starts_with("limits.") || name.starts_with("auth.");
    assert_eq!(with_star, fixed.into_iter().filter(limits).collect());
}

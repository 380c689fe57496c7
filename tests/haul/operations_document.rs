//! `docs/OPERATIONS.md` describes the log and the settings of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

/// The texts in backquotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The text of every source file, without unit tests and the implementation of the log.
fn sources() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = walkdir::WalkDir::new(sources).into_iter();
    let texts = files.filter_map(|file| {
        let file = file.expect("readable");
        let is_file = file.file_type().is_file();
        let is_log = file
            .path()
            .components()
            .any(|part| part.as_os_str() == "telemetry");
        let text =
            (is_file && !is_log).then(|| std::fs::read_to_string(file.path()).expect("text"))?;
        let end = text
            .find("\n#[cfg(test)]\nmod tests {")
            .unwrap_or(text.len());
        Some(text[..end].to_owned())
    });
    texts.collect()
}

/// The log events of the sources by their code, each with its level and message.
fn events() -> BTreeMap<String, (String, String)> {
    let sources = sources();
    let mut events = BTreeMap::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        for (offset, _) in sources.match_indices(&format!("{level}!(")) {
            let before = sources[..offset].chars().next_back();
            if before.is_none_or(|before| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let call = &sources[offset..];
            let inside = call[level.len() + 2..].trim_start();
            let named = inside.strip_prefix("name: \"");
            let named = named.unwrap_or_else(|| panic!("an event without a name: {call:.99}"));
            let (code, _) = named.split_once('"').expect("an end");
            let is_code = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(code.chars().all(is_code), "{code}");
            let full_call = &call[..end_of_call(call)];
            let message = full_call.rsplit('"').nth(1).expect("a message");
            let event = (level.to_owned(), message.replace("{by}", "…"));
            let old = events.insert(code.to_owned(), event.clone());
            assert!(old.is_none_or(|old| old == event), "{code} says two things");
        }
    }
    events
}

/// The position after the parenthesis that closes the first one.
fn end_of_call(call: &str) -> usize {
    let mut depth = 0;
    let mut quoted = false;
    for (offset, character) in call.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return offset;
                }
            }
            _ => {}
        }
    }
    panic!("a call without an end: {call:.99}");
}

#[test]
fn the_document_explains_every_log_event_and_no_other() {
    let (_, rest) = DOCUMENT
        .split_once("| `event` | `message` |")
        .expect("a table");
    let table = rest.split("\n\n").next().expect("a text");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: BTreeMap<_, _> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let code = cells.next().expect("a code").trim_end_matches('`');
            let message = cells.next().expect("a message").to_owned();
            let level = cells.next().expect("a level").to_owned();
            (code.to_owned(), (level, message))
        })
        .collect();
    assert_eq!(explained, events());
    let messages: BTreeSet<_> = explained.values().collect();
    assert_eq!(messages.len(), explained.len(), "two codes say the same");
}

#[test]
fn every_setting_that_the_document_names_exists() {
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

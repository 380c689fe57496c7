//! `docs/OPERATIONS.md` is true: what it says of the log and of the settings is in the code.

use std::path::Path;

const DOCUMENT: &str = include_str!("../../docs/OPERATIONS.md");

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
    let words = DOCUMENT.split('`').skip(1).step_by(2);
    let mut named = 0;
    for word in words {
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

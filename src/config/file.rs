//! Reads the settings of a configuration file, each with its line.

use std::path::Path;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Value};

use crate::config::problem::{ConfigProblem, SettingOrigin};
use crate::config::setting::{KnownSettings, LIST_OF_SETTINGS, LoadedSetting};
use crate::config::suggestion::{alternatives, did_you_mean, near_names};
use crate::io_error::describe_io_error;

/// The settings of a file in the order of its lines, and what is wrong with its form.
pub(super) struct ConfigFile {
    pub(super) settings: Vec<LoadedSetting>,
    pub(super) problems: Vec<ConfigProblem>,
}

impl ConfigFile {
    pub(super) fn read(path: &Path, known: &KnownSettings) -> Self {
        let mut file = Self {
            settings: Vec::new(),
            problems: Vec::new(),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => file.parse(path, &text, known),
            Err(error) => file.problems.push(ConfigProblem::Read {
                path: path.into(),
                reason: describe_io_error(&error),
            }),
        }
        file
    }

    fn parse(&mut self, path: &Path, text: &str, known: &KnownSettings) {
        let line_of = |at: usize| {
            let before = text.bytes().take(at);
            before.filter(|byte| *byte == b'\n').count() + 1
        };
        let origin = |line: usize| SettingOrigin::File(path.into(), line);
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut broken_lines = Vec::new();
        for error in errors {
            let line = line_of(error.span().map_or(0, |span| span.start));
            // One mistake may be several errors of the parser.
            if !broken_lines.contains(&line) {
                broken_lines.push(line);
                self.add_problem(origin(line), error.message().trim_end().into());
            }
        }
        // After a broken `[section]`, the sections of the following settings are unknown.
        let is_header = |line: &usize| {
            let text = text.lines().nth(line - 1).unwrap_or_default();
            text.trim_start().starts_with('[')
        };
        let broken_header = broken_lines.iter().copied().filter(is_header).min();
        let is_broken = |line: &usize| {
            broken_lines.contains(line) || broken_header.is_some_and(|header| *line > header)
        };
        for (name, content) in document.into_inner() {
            let line = line_of(name.span().start);
            if is_broken(&line) {
                continue;
            }
            let name = name.into_inner();
            match content.into_inner() {
                DeValue::Table(_) if !known.sections().any(|section| section == name) => {
                    self.add_problem(origin(line), unknown_section(&name, known));
                }
                DeValue::Table(keys) => {
                    for (key, value) in keys {
                        let line = line_of(key.span().start);
                        if !is_broken(&line) {
                            self.settings.push(LoadedSetting {
                                origin: origin(line),
                                section: name.clone().into_owned(),
                                key: key.into_inner().into_owned(),
                                value: to_value(value),
                            });
                        }
                    }
                }
                _ => self.add_problem(origin(line), outside_a_section(&name, known)),
            }
        }
        self.settings.sort_by_key(|setting| match setting.origin {
            SettingOrigin::File(_, line) => line,
            SettingOrigin::Environment(_) => 0,
        });
    }

    fn add_problem(&mut self, origin: SettingOrigin, message: String) {
        self.problems
            .push(ConfigProblem::Setting { origin, message });
    }
}

/// The value without positions. A value that the parser could not read is an empty text.
fn to_value(value: Spanned<DeValue<'_>>) -> Value {
    let deserializer: ValueDeserializer<'_> = value.into_deserializer();
    Value::deserialize(deserializer).unwrap_or_else(|_| Value::String(String::new()))
}

fn unknown_section(name: &str, known: &KnownSettings) -> String {
    let close_names = near_names(name, known.sections());
    let close_names: Vec<_> = close_names
        .iter()
        .map(|section| format!("[{section}]"))
        .collect();
    let close_names: Vec<_> = close_names.iter().map(String::as_str).collect();
    format!(
        "there is no section [{name}]{}",
        did_you_mean(&close_names, LIST_OF_SETTINGS)
    )
}

/// The message about a value that stands above all sections.
fn outside_a_section(name: &str, known: &KnownSettings) -> String {
    if known.sections().any(|section| section == name) {
        return format!("`{name}` is a section; write [{name}], and its settings below it");
    }
    let sections = known.sections_with(name);
    if sections.is_empty() {
        return known.unknown(name);
    }
    let sections: Vec<_> = sections
        .iter()
        .map(|section| format!("[{section}]"))
        .collect();
    let sections: Vec<_> = sections.iter().map(String::as_str).collect();
    format!("`{name}` must stand under {}", alternatives(&sections))
}

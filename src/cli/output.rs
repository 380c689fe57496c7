//! Results go to standard output, for people or as JSON; everything else to standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _, stderr, stdout};

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::protocol::PathReply;

/// How to print.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches")]
pub(super) struct Output {
    /// One JSON object per line instead of text.
    json: bool,
    /// No notes.
    quiet: bool,
    /// Progress may be drawn.
    pub(super) progress: bool,
    /// A person reads the results.
    pub(super) terminal: bool,
}

impl Output {
    /// Text with notes, and without progress bars.
    pub(super) const TEXT: Self = Self {
        json: false,
        quiet: false,
        progress: false,
        terminal: false,
    };

    /// Results as JSON if `json`; no notes if `quiet`; progress bars only at a terminal and if neither
    /// `quiet` nor `no_progress`.
    pub(super) fn new(json: bool, quiet: bool, no_progress: bool) -> Self {
        Self {
            json,
            quiet,
            progress: !no_progress && !quiet && stderr().is_terminal(),
            terminal: stdout().is_terminal(),
        }
    }

    /// The same without a progress bar, if a terminal shows the data of a file.
    pub(super) fn beside_data(self) -> Self {
        Self {
            progress: self.progress && !self.terminal,
            ..self
        }
    }

    /// Whether results are to be JSON objects.
    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `value` as JSON, or the lines that `text` makes of it.
    pub(super) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            print_json(value)?;
        } else {
            print(&text(value))?;
        }
        Ok(())
    }

    /// Prints each of many results, in one piece.
    pub(super) fn results<T: Serialize>(
        self,
        values: &[T],
        mut text: impl FnMut(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut lines = String::new();
        for value in values {
            let line = if self.json {
                safe_json(&serde_json::to_string(value)?)
            } else {
                text(value)
            };
            lines.push_str(&line);
            lines.push('\n');
        }
        if lines.pop().is_none() {
            return Ok(());
        }
        print(&lines)?;
        Ok(())
    }

    /// Prints a list: an object a line for a program, `text` for a person.
    pub(super) fn list<T: Serialize>(
        self,
        objects: &[T],
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            return self.results(objects, |_| String::new());
        }
        print(&text())?;
        Ok(())
    }

    /// Prints the new path of an entry, for programs and on a terminal.
    pub(super) fn done(self, path: &str) -> anyhow::Result<()> {
        if self.json {
            let path = path.to_owned();
            print_json(&PathReply { path })?;
            return Ok(());
        }
        if self.terminal {
            self.note(path);
        }
        Ok(())
    }

    /// Whether notes are unwanted.
    pub(super) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Prints a note for a person on standard error.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            // A note that nobody can read is no reason to stop.
            let _ = writeln!(stderr(), "{}", safe(text));
        }
    }
}

/// Prints a result for a person, one or more whole lines.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a result for a program, on a line of its own.
pub(super) fn print_json<T: Serialize>(object: &T) -> io::Result<()> {
    print(&safe_json(&serde_json::to_string(object)?))
}

/// `text` with everything escaped that could move the cursor, change colours or reorder what
/// is beside it.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => escaped.extend(c.escape_default()),
            c if is_unsafe(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    escaped.into()
}

/// JSON escapes what ASCII calls control characters; this does the same to the rest of them.
pub(super) fn safe_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Control characters, line separators, and the marks that reorder text (Unicode UAX #9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A size as people read it.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time in the user's time zone.
pub(super) fn local_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M")
        .to_string()
}

/// `1 file`, `2 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(safe("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(safe("evil\u{202e}fdp.exe"), "evil\\u{202e}fdp.exe");
        assert_eq!(safe("Übung 一 🎉"), "Übung 一 🎉");
    }

    #[test]
    fn json_stays_the_same_json_without_driving_the_terminal() {
        let text = "a\u{9b}\u{202e}\x7f\u{1b}ü";
        let json = safe_json(&serde_json::to_string(text).expect("JSON"));
        assert!(!json.chars().any(is_unsafe), "{json}");
        let back: String = serde_json::from_str(&json).expect("still JSON");
        assert_eq!(back, text);
    }
}

//! Results go to standard output, everything else to standard error.

use std::io::{self, Write};

use serde::Serialize;

/// What is printed, and how.
#[derive(Debug)]
pub(super) struct Output {
    /// Results are JSON objects, one a line.
    json: bool,
    /// Only results and errors are printed.
    quiet: bool,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Prints a result: `object` for a program, `text` for a person.
    pub(super) fn result(&self, object: &impl Serialize, text: &str) -> io::Result<()> {
        if self.json {
            return print_line(&serde_json::to_string(object)?);
        }
        print_line(text)
    }

    /// Prints a list: an object a line for a program, `text` for a person.
    pub(super) fn list(
        &self,
        objects: &[impl Serialize],
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if !self.json {
            return print_line(&text());
        }
        for object in objects {
            print_line(&serde_json::to_string(object)?)?;
        }
        Ok(())
    }

    /// Says what was done, or what there is to know.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }
}

/// Says something on standard error. If nobody can read it, that is no reason to stop.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

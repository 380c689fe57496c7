//! What is said beside the log, on standard error, in the shape of the log: many engines mix the
//! two, and whoever reads one JSON object a line there trips over anything else.

use std::io::{self, IsTerminal as _, Write as _};
use std::panic;

use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use super::{Format, format_of};
use crate::config::LogFormat;

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'static str,
    event: &'a str,
    message: &'a str,
}

/// Whether standard error takes JSON, with a log of this format: a terminal never does.
#[must_use]
pub fn is_json_beside(log: LogFormat) -> bool {
    let on_terminal = io::stdout().is_terminal();
    !io::stderr().is_terminal() && format_of(log, on_terminal) == Format::Json
}

/// Says an error on standard error as a line of the log; `event` is what programs know it by.
pub fn say_beside(event: &str, message: &str) {
    let line = Line {
        time: super::line::time(Timestamp::now()).to_string(),
        level: "error",
        event,
        message,
    };
    // Where nobody can read it there is no other place to say so.
    if let Ok(line) = serde_json::to_string(&line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Has panics logged, which the standard library would write to standard error for people.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let cause = panic.payload_as_str().unwrap_or("unknown");
        let thread = std::thread::current();
        error!(
            name: "panic",
            cause,
            place,
            thread = thread.name(),
            backtrace = %std::backtrace::Backtrace::capture(),
            "a defect of haul: a thread panicked"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beside_the_log_has_its_fields_in_its_order() {
        let line = Line {
            time: super::super::line::time(Timestamp::UNIX_EPOCH).to_string(),
            level: "error",
            event: "can_not_start",
            message: "no \"disk\"\n",
        };
        assert_eq!(
            serde_json::to_string(&line).expect("JSON"),
            r#"{"time":"1970-01-01T00:00:00.000Z","level":"error","event":"can_not_start","message":"no \"disk\"\n"}"#
        );
    }
}

//! Messages on standard error in the format of the log: container engines often mix the two streams,
//! and a reader of JSON lines cannot parse anything else.

use std::io::{self, IsTerminal as _, Write as _};
use std::panic;

use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use crate::config::LogFormat;
use crate::telemetry::format::{LineFormat, resolve_format, time};

#[derive(Serialize)]
struct StderrLine<'a> {
    time: String,
    level: &'static str,
    event: &'a str,
    message: &'a str,
}

/// Whether messages on standard error are JSON for this log format; never on a terminal.
#[must_use]
pub fn stderr_is_json(log: LogFormat) -> bool {
    let on_terminal = io::stdout().is_terminal();
    !io::stderr().is_terminal() && resolve_format(log, on_terminal) == LineFormat::Json
}

/// Writes an error to standard error as a line of the log with this `event`.
pub fn log_to_stderr(event: &str, message: &str) {
    let line = StderrLine {
        time: time(Timestamp::now()).to_string(),
        level: "error",
        event,
        message,
    };
    // If standard error is closed, the message is lost.
    if let Ok(line) = serde_json::to_string(&line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Logs panics, instead of the standard library's message on standard error.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let cause = panic.payload();
        let text = cause.downcast_ref().map(String::as_str);
        let cause = text.or_else(|| cause.downcast_ref().copied());
        let thread = std::thread::current();
        error!(
            name: "panic",
            cause,
            place = location,
            thread = thread.name(),
            backtrace = %std::backtrace::Backtrace::capture(),
            "a defect of haul: a thread panicked"
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::config::LogSettings;

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let name = "telemetry::stderr_log::tests::panics_with_a_log";
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--ignored", "--exact", "--nocapture", name])
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text.lines().filter(|line| line.starts_with('{'));
        let lines: Vec<serde_json::Value> = lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let [line] = &lines[..] else {
            panic!("one line, not {text}");
        };
        assert_eq!(line["event"], "panic");
        assert_eq!(line["level"], "error");
        assert_eq!(line["cause"], "a defect\nof two lines");
        assert_eq!(line["thread"], "worker");
        let place = line["place"].as_str().expect("a place");
        assert!(place.contains("stderr_log.rs:"), "{place}");
        assert!(output.stderr.is_empty(), "all is in the log");
    }

    #[test]
    #[ignore = "wants a process of its own: run by the test above"]
    fn panics_with_a_log() {
        let log = LogSettings {
            format: LogFormat::Json,
            ..LogSettings::default()
        };
        let telemetry = crate::telemetry::start(&log).expect("a log");
        log_panics();
        let worker = std::thread::Builder::new().name("worker".into());
        let worker = worker.spawn(|| panic!("a defect\nof two lines"));
        worker.expect("a thread").join().expect_err("it panics");
        telemetry.finish(Duration::from_secs(10));
    }

    #[test]
    fn a_line_on_standard_error_has_the_fields_of_the_log_in_order() {
        let line = StderrLine {
            time: time(Timestamp::UNIX_EPOCH).to_string(),
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

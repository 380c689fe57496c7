//! What is said beside the log, on standard error, in the shape of the log: many engines mix the
//! two, and whoever reads one JSON object a line there trips over anything else.

use std::io::{self, IsTerminal as _, Write as _};
use std::panic;

use jiff::Timestamp;
use serde::Serialize;
use tracing::error;

use crate::config::LogFormat;
use crate::telemetry::{Format, format_of};

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'static str,
    event: &'a str,
    message: &'a str,
}

/// Whether standard error takes JSON, with a log of this format: a terminal never does.
#[must_use]
pub fn stderr_is_json(log: LogFormat) -> bool {
    let on_terminal = io::stdout().is_terminal();
    !io::stderr().is_terminal() && format_of(log, on_terminal) == Format::Json
}

/// Says an error on standard error as a line of the log; `event` is what programs know it by.
pub fn log_to_stderr(event: &str, message: &str) {
    let line = Line {
        time: crate::telemetry::line::time(Timestamp::now()).to_string(),
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
        let cause = panic.payload();
        let text = cause.downcast_ref().map(String::as_str);
        let cause = text.or_else(|| cause.downcast_ref().copied());
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
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::config::Log;

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let name = "telemetry::beside::tests::panics_with_a_log";
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
        assert!(place.contains("beside.rs:"), "{place}");
        assert!(output.stderr.is_empty(), "all is in the log");
    }

    #[test]
    #[ignore = "wants a process of its own: run by the test above"]
    fn panics_with_a_log() {
        let log = Log {
            format: LogFormat::Json,
            ..Log::default()
        };
        let telemetry = crate::telemetry::start(&log).expect("a log");
        log_panics();
        let worker = std::thread::Builder::new().name("worker".into());
        let worker = worker.spawn(|| panic!("a defect\nof two lines"));
        worker.expect("a thread").join().expect_err("it panics");
        telemetry.finish(Duration::from_secs(10));
    }

    #[test]
    fn a_line_beside_the_log_has_its_fields_in_its_order() {
        let line = Line {
            time: crate::telemetry::line::time(Timestamp::UNIX_EPOCH).to_string(),
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

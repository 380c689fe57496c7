//! Errors as people and programs read them: one sentence with the reason, then the advice.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::advice::advice;
use crate::cli::exit::{SpaceExplained, StoppedEarly, error_code, exit_code, is_reported};
use crate::cli::output::{Output, safe, safe_json};
use crate::cli::wrap::{stderr_width, wrapped};
use crate::config::{ConfigError, ConfigProblem, SettingOrigin};
use crate::io_error::{describe_io_error, without_number};
use crate::telemetry;

/// An error as `--json` shows it on standard error.
#[derive(Serialize)]
struct ErrorObject<'a> {
    command: &'a str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a str>,
    /// The mistakes of a configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<ProblemObject<'a>>,
}

/// A mistake of a configuration, as `--json` shows it.
#[derive(Serialize)]
struct ProblemObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The environment variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    message: String,
}

impl<'a> ProblemObject<'a> {
    fn new(problem: &'a ConfigProblem) -> Self {
        let mut object = Self {
            file: None,
            line: None,
            variable: None,
            message: problem.to_string(),
        };
        match problem {
            ConfigProblem::Read { path, .. } => object.file = Some(path),
            ConfigProblem::Setting { origin, message } => {
                object.message.clone_from(message);
                match origin {
                    SettingOrigin::File(path, line) => {
                        object.file = Some(path);
                        object.line = Some(*line);
                    }
                    SettingOrigin::Environment(name) => object.variable = Some(name),
                }
            }
            ConfigProblem::File(_) => {}
        }
        object
    }
}

/// Prints the error of `command`, and returns the exit code for it.
pub(super) fn report(output: Output, command: &str, error: &anyhow::Error) -> ExitCode {
    print_error(output, command, error);
    ExitCode::from(exit_code(error))
}

/// Writes the error as a line of the log that programs know by `event`, and returns the exit code
/// for it.
pub(super) fn report_in_log(event: &str, error: &anyhow::Error) -> ExitCode {
    let mut text = reason(error);
    if let Some(advice) = advice("serve", error) {
        text = format!("{text}; {advice}");
    }
    telemetry::log_to_stderr(event, &text);
    ExitCode::from(exit_code(error))
}

/// Prints the error of `command` on standard error, unless it was reported before: one line, or one
/// for each mistake of a configuration.
pub(super) fn print_error(output: Output, command: &str, error: &anyhow::Error) {
    if let Some(error) = error.downcast_ref::<ConfigError>()
        && !output.is_json()
    {
        for problem in error.problems() {
            let line = safe(&format!("haul: {command}: {problem}")).into_owned();
            let _ = writeln!(io::stderr(), "{line}");
        }
    } else if !is_reported(error) {
        // If standard error has no reader, the exit code still reports the failure.
        let _ = writeln!(io::stderr(), "{}", error_text(output, command, error));
    }
}

/// The error of `command` for standard error: a JSON object, a paragraph as wide as the terminal, or
/// one line.
pub(super) fn error_text(output: Output, command: &str, error: &anyhow::Error) -> String {
    if output.is_json() {
        return error_json(command, error);
    }
    let line = error_line(command, error);
    if io::stderr().is_terminal() {
        wrapped(&line, stderr_width())
    } else {
        line
    }
}

/// `haul: command: reason; advice`, harmless to the terminal.
pub(super) fn error_line(command: &str, error: &anyhow::Error) -> String {
    let advice = advice(command, error);
    let command = match command {
        "" => String::new(),
        command => format!("{command}: "),
    };
    let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
    safe(&format!("haul: {command}{}{advice}", reason(error))).into_owned()
}

fn error_json(command: &str, error: &anyhow::Error) -> String {
    let (message, advice) = (reason(error), advice(command, error));
    let problems = error.downcast_ref().map_or(&[][..], ConfigError::problems);
    let object = ErrorObject {
        command,
        code: &error_code(error),
        message: &message,
        advice: advice.as_deref(),
        problems: problems.iter().map(ProblemObject::new).collect(),
    };
    let json = serde_json::to_string(&object);
    json.map_or_else(|error| error.to_string(), |json| safe_json(&json))
}

/// The error and its causes, without repetitions and without the system's error numbers.
fn reason(error: &anyhow::Error) -> String {
    if let Some(SpaceExplained(text)) = error.downcast_ref() {
        return match error.downcast_ref() {
            Some(StoppedEarly { files }) => format!("stopped after {files}: {text}"),
            None => text.clone(),
        };
    }
    let mut text = describe_cause(error.as_ref());
    for cause in error.chain().skip(1).map(describe_cause) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    // A message may quote an error of the system.
    without_number(text)
}

fn describe_cause(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(error) => describe_io_error(error),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::{FailedWithAdvice, Reported};
    use crate::client::ClientError;
    use crate::protocol::{ErrorCode, WireError};

    fn refused(code: ErrorCode, message: &str) -> anyhow::Error {
        ClientError::Server(WireError::new(code, message)).into()
    }

    #[test]
    fn no_cause_is_printed_twice() {
        let cause = || anyhow::anyhow!("the disk fails");
        for context in ["cannot read it: the disk fails", "cannot read it"] {
            assert_eq!(
                error_line("df", &cause().context(context)),
                "haul: df: cannot read it: the disk fails"
            );
        }
    }

    #[test]
    fn the_advice_follows_the_reason() {
        let error = anyhow::Error::from(io::Error::from_raw_os_error(98));
        let error = error.context(FailedWithAdvice {
            failed: "cannot listen on 0.0.0.0:9000".into(),
            advice: "choose another port",
        });
        assert_eq!(
            error_line("serve", &error),
            "haul: serve: cannot listen on 0.0.0.0:9000: address already in use; \
             choose another port"
        );
    }

    #[test]
    fn a_message_of_the_server_cannot_control_the_terminal() {
        let error = refused(ErrorCode::NotFound, "no such file: \x1b[2J\u{202e}\n");
        assert_eq!(
            error_line("stat", &error),
            "haul: stat: no such file: \\u{1b}[2J\\u{202e}\\n"
        );
    }

    #[test]
    fn a_program_gets_the_code_the_message_and_the_advice() {
        assert_eq!(
            error_json("rm", &refused(ErrorCode::NotEmpty, "a is not empty")),
            r#"{"command":"rm","code":"not_empty","message":"a is not empty","advice":"to remove it with its content, run `haul rm -r`"}"#
        );
        assert_eq!(
            error_json("ls", &Reported.into()),
            r#"{"command":"ls","code":"failed","message":"the command failed"}"#
        );
    }
}

//! Wrong arguments, explained in one sentence.

use std::error::Error as _;
use std::fmt::Write as _;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Names that are suggested in place of an unknown one.
const MAX_SUGGESTIONS: usize = 3;

/// The subcommands among `arguments`, such as `user add`.
pub(super) fn command_name(program: &Command, arguments: impl Iterator<Item = String>) -> String {
    let mut command = program;
    let mut names: Vec<&str> = Vec::new();
    for argument in arguments {
        if let Some(sub) = command.find_subcommand(&argument) {
            names.push(sub.get_name());
            command = sub;
        }
    }
    names.join(" ")
}

/// The help for arguments that only lack a subcommand.
pub(super) fn missing_subcommand_help(program: &mut Command, name: &str) -> String {
    let names: Vec<_> = name.split(' ').filter(|name| !name.is_empty()).collect();
    help_of(program, &names)
}

fn help_of(command: &mut Command, names: &[&str]) -> String {
    if let [first, rest @ ..] = names
        && command.find_subcommand(first).is_some()
        && let Some(sub) = command.find_subcommand_mut(first)
    {
        return help_of(sub, rest);
    }
    command.render_help().to_string()
}

/// The mistake in the arguments, and where the command `help` explains the right ones.
pub(super) fn sentence(error: &clap::Error, help: &str) -> String {
    let mut text = mistake(error).unwrap_or_else(|| first_line(error));
    if let Some(hint) = hint(error, help) {
        let _ = write!(text, ": {hint}; see `{help}`");
        return text;
    }
    let suggestions = suggestions(error);
    if suggestions.is_empty() {
        let _ = write!(text, "; see `{help}`");
    } else {
        let _ = write!(text, "; did you mean {suggestions}? See `{help}`");
    }
    text
}

/// What stands in for an option that other programs have.
fn hint(error: &clap::Error, help: &str) -> Option<&'static str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let option = argument(error)?;
    let is_sync = help == "haul sync --help";
    if !is_sync && !matches!(help, "haul put --help" | "haul get --help") {
        return None;
    }
    Some(match &*option {
        "-a" | "--archive" | "-t" | "--times" | "-p" | "--perms" => {
            "times and permission bits are always kept"
        }
        "-r" | "-R" | "--recursive" => "directories are always transferred with their content",
        "-v" | "--verbose" if is_sync => "`--itemize` prints every action",
        "-n" if is_sync => "`--dry-run` prints the plan",
        "-c" if is_sync => "`--checksum` compares the content",
        "-u" if is_sync => "`--update` keeps newer files",
        "-z" | "--compress" => "nothing is compressed",
        "-P" | "--partial" | "--progress" => {
            "progress is shown, and the same command resumes an interrupted one"
        }
        _ => return None,
    })
}

fn mistake(error: &clap::Error) -> Option<String> {
    let argument = argument(error);
    Some(match error.kind() {
        ErrorKind::UnknownArgument => match argument? {
            option if option.starts_with('-') => format!("there is no option `{option}`"),
            word => format!("the argument `{word}` is one too many"),
        },
        ErrorKind::InvalidSubcommand => {
            let name = string(error, ContextKind::InvalidSubcommand)?;
            format!("there is no command `{name}`")
        }
        ErrorKind::InvalidValue => invalid_value(error, &argument?)?,
        ErrorKind::ValueValidation => {
            let value = string(error, ContextKind::InvalidValue)?;
            let why = problem(value, &error.source()?.to_string());
            format!("`{}` cannot be {value:?}: {why}", argument?)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = strings(error, ContextKind::InvalidArg);
            let missing = missing
                .iter()
                .map(|name| name.replace(['<', '>'], "").replace("...", "…"));
            format!("{} is missing", missing.collect::<Vec<_>>().join(" "))
        }
        ErrorKind::ArgumentConflict => {
            let argument = argument?;
            let others = strings(error, ContextKind::PriorArg);
            let others: Vec<_> = others.iter().map(|other| name_of(other)).collect();
            if others.is_empty() || others == [&*argument] {
                format!("`{argument}` is given twice")
            } else {
                format!("`{argument}` cannot be used with `{}`", others.join("`, `"))
            }
        }
        ErrorKind::TooManyValues => {
            let value = string(error, ContextKind::InvalidValue)?;
            format!("`{}` takes no value {value:?}", argument?)
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => return None,
    })
}

/// A value that is missing, or none of the possible ones.
fn invalid_value(error: &clap::Error, argument: &str) -> Option<String> {
    let possible = strings(error, ContextKind::ValidValue);
    let value = string(error, ContextKind::InvalidValue)?;
    let choices = match &*possible {
        [] => String::new(),
        [only] => format!(": expected {only}"),
        [first @ .., last] => format!(": expected {} or {last}", first.join(", ")),
    };
    Some(if value.is_empty() {
        format!("`{argument}` needs a value{choices}")
    } else {
        format!("`{argument}` cannot be {value:?}{choices}")
    })
}

/// The problem with a value, in words.
fn problem(value: &str, message: &str) -> String {
    if let Some((_, range)) = message.split_once(" is not in ")
        && let Some((from, to)) = range.split_once("..=")
    {
        return format!("expected a number from {from} to {to}");
    }
    match message {
        "invalid digit found in string" if value.starts_with('-') => {
            "expected a number that is not negative".into()
        }
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "expected a whole number".into()
        }
        "number too large to fit in target type" => "the number is too large".into(),
        "number would be zero for non-zero type" => "expected at least 1".into(),
        message => message.into(),
    }
}

/// Up to [`MAX_SUGGESTIONS`] similar names, the nearest first.
fn suggestions(error: &clap::Error) -> String {
    let kinds = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let names = kinds.into_iter().flat_map(|kind| strings(error, kind));
    let mut names: Vec<_> = names.collect();
    // The parser sorts the nearest name last.
    names.reverse();
    names.truncate(MAX_SUGGESTIONS);
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(" or ")
}

/// The option or argument that is wrong, without the name of its value.
fn argument(error: &clap::Error) -> Option<String> {
    let argument = string(error, ContextKind::InvalidArg)?;
    Some(name_of(argument).to_owned())
}

/// `--port` of `--port <PORT>`.
fn name_of(argument: &str) -> &str {
    match argument.split_once([' ', '=']) {
        Some((name, _)) if name.starts_with('-') => name,
        _ => argument,
    }
}

fn string(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text],
        Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::{Arg, value_parser};

    use super::*;

    fn program() -> Command {
        let port = Arg::new("port")
            .long("port")
            .value_parser(value_parser!(u16));
        let kind = Arg::new("kind").long("kind").value_parser(["one", "two"]);
        let count = Arg::new("count").long("count");
        let count = count.value_parser(value_parser!(u32).range(1..=9));
        let quick = Arg::new("quick")
            .long("quick")
            .num_args(0)
            .conflicts_with("kind");
        let path = Arg::new("path").required(true).value_name("PATH");
        let list = Command::new("list").args([port, kind, count, quick, path]);
        Command::new("p").subcommand(list)
    }

    fn explained(arguments: &[&str]) -> String {
        let arguments = ["p"].iter().chain(arguments);
        let error = program()
            .try_get_matches_from(arguments)
            .expect_err("wrong");
        sentence(&error, "p help")
    }

    #[test]
    fn each_mistake_is_one_sentence_with_the_argument_and_the_remedy() {
        for (arguments, expected) in [
            (
                &["lst"][..],
                "there is no command `lst`; did you mean `list`? See `p help`",
            ),
            (
                &["list", "a", "--prt", "1"],
                "there is no option `--prt`; did you mean `--port`? See `p help`",
            ),
            (
                &["list", "a", "-z"],
                "there is no option `-z`; see `p help`",
            ),
            (
                &["list", "a", "b"],
                "the argument `b` is one too many; see `p help`",
            ),
            (&["list"], "PATH is missing; see `p help`"),
            (
                &["list", "a", "--port", "x"],
                "`--port` cannot be \"x\": expected a whole number; see `p help`",
            ),
            (
                &["list", "a", "--port", "99999"],
                "`--port` cannot be \"99999\": expected a number from 0 to 65535; see `p help`",
            ),
            (
                &["list", "a", "--count", "0"],
                "`--count` cannot be \"0\": expected a number from 1 to 9; see `p help`",
            ),
            (
                &["list", "a", "--kind", "three"],
                "`--kind` cannot be \"three\": expected one or two; see `p help`",
            ),
            (
                &["list", "a", "--port"],
                "`--port` needs a value; see `p help`",
            ),
            (
                &["list", "a", "--quick", "--kind", "one"],
                "`--quick` cannot be used with `--kind`; see `p help`",
            ),
            (
                &["list", "a", "--port", "1", "--port", "2"],
                "`--port` is given twice; see `p help`",
            ),
        ] {
            assert_eq!(explained(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn options_of_other_programs_are_explained() {
        let error = program()
            .try_get_matches_from(["p", "list", "-a", "x"])
            .expect_err("unknown");
        assert_eq!(
            sentence(&error, "haul sync --help"),
            "there is no option `-a`: times and permission bits are always kept; \
             see `haul sync --help`"
        );
    }

    #[test]
    fn the_name_of_a_command_is_found_among_its_arguments() {
        let words = ["--server", "x", "list", "--port"].map(str::to_owned);
        assert_eq!(command_name(&program(), words.into_iter()), "list");
    }
}

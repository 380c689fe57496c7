//! The help of all commands: examples first, then the usage, the description and the options.

use clap::Command;

use crate::cli::command_groups::list_commands;
use crate::cli::examples::examples;

/// The options that only commands with a server have are listed under this heading.
pub(super) const CONNECTION: &str = "Connection";

/// The widest example that has its explanation on the same line.
const MAX_EXAMPLE: usize = 52;

/// Gives a command and its subcommands their help. `prefix` is the name of the program, and is
/// removed where the examples are typed without it.
pub(super) fn with_help(command: Command, prefix: &str) -> Command {
    with_help_of(command, "", prefix)
}

fn with_help_of(mut command: Command, path: &str, prefix: &str) -> Command {
    let is_program = path.is_empty() && prefix.is_empty();
    if is_program {
        let short = list_commands(&command, true);
        let long = list_commands(&command, false);
        command = command.before_help(short).before_long_help(long);
    }
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    // The parser's own usage would list the options that the environment gives.
    let usage = usage.strip_prefix(prefix).unwrap_or(usage).to_owned();
    let names: Vec<_> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(name, |sub| with_help_of(sub, path.trim(), prefix));
    }
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string);
    if let Some(details) = long.as_deref().and_then(|long| long.strip_prefix(&*about)) {
        command = command.before_long_help(details.trim_start_matches('.').trim().to_owned());
    }
    let arguments = if is_program {
        "Options:\n{options}"
    } else {
        "{all-args}"
    };
    let template = template(&about, &lines(path, prefix), arguments);
    command.override_usage(usage).help_template(template)
}

fn template(about: &str, examples: &str, arguments: &str) -> String {
    let examples = if examples.is_empty() {
        String::new()
    } else {
        format!("Examples:\n{examples}\n")
    };
    format!(
        "{about}\n\n{examples}{{usage-heading}} {{usage}}\n\n{{before-help}}{arguments}{{after-help}}\n"
    )
}

/// The examples of a command, one a line. Without the program's name they are typed in its own
/// shell, which has no pipes.
fn lines(path: &str, prefix: &str) -> String {
    let shown = examples(path).iter().filter_map(|(line, meaning)| {
        if prefix.is_empty() {
            Some((*line, *meaning))
        } else {
            let line = line.strip_prefix(prefix)?;
            (!line.contains(['|', '<', '>']) && !line.starts_with("--")).then_some((line, *meaning))
        }
    });
    let shown: Vec<_> = shown.collect();
    let widths = shown.iter().map(|(line, _)| line.chars().count());
    let width = widths
        .filter(|width| *width <= MAX_EXAMPLE)
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (line, meaning) in shown {
        let line = match meaning {
            "" => format!("  {line}\n"),
            meaning => format!("  {line:width$}  # {meaning}\n"),
        };
        text.push_str(&line);
    }
    text
}

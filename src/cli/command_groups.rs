//! The commands in groups, as the help of the program lists them.

use std::fmt::Write as _;

use clap::Command;

/// Commands of one purpose.
struct CommandGroup {
    heading: &'static str,
    /// The commands that most users need, which the short help explains.
    common: &'static [&'static str],
    /// Those that the short help only names.
    other: &'static [&'static str],
}

const GROUPS: [CommandGroup; 6] = [
    CommandGroup {
        heading: "Log in",
        common: &["connect", "use", "logout"],
        other: &["profiles", "passwd", "whoami", "token", "discover"],
    },
    CommandGroup {
        heading: "Transfer files",
        common: &["put", "get", "sync"],
        other: &["uploads", "discard"],
    },
    CommandGroup {
        heading: "Work with files on the server",
        common: &["ls", "mkdir", "rm", "mv", "cp", "shell"],
        other: &["cat", "stat", "hash", "find", "tree", "du", "df", "watch"],
    },
    CommandGroup {
        heading: "Talk and share",
        common: &["say", "chat", "send", "accept"],
        other: &[
            "who", "history", "join", "leave", "offers", "decline", "withdraw",
        ],
    },
    CommandGroup {
        heading: "Run a server",
        common: &["serve", "user", "folder", "admin"],
        other: &["backup", "check-config", "healthcheck"],
    },
    CommandGroup {
        heading: "Other",
        common: &["demo", "help"],
        other: &["ping", "bench", "completions", "man"],
    },
];

/// The commands of `program` by group: each with its summary, or with `is_short` the less common ones
/// only by name.
pub(super) fn list_commands(program: &Command, is_short: bool) -> String {
    let mut text = String::new();
    for group in &GROUPS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}:", group.heading);
        let explained = group.common.iter().chain(group.other);
        let count = if is_short {
            group.common.len()
        } else {
            group.common.len() + group.other.len()
        };
        for name in explained.take(count) {
            let _ = writeln!(text, "  {name:12}  {}", summary(program, name));
        }
        if is_short {
            let _ = writeln!(text, "  also: {}", group.other.join(", "));
        }
        text.push('\n');
    }
    text.push_str(if is_short {
        "`haul --help` explains all commands, and `haul help COMMAND` one of them.\n"
    } else {
        "`haul help COMMAND` explains a command.\n"
    });
    text
}

fn summary(program: &Command, name: &str) -> String {
    // The parser adds it later.
    if name == "help" {
        return "Print the help of a command".to_owned();
    }
    let command = program.find_subcommand(name);
    let about = command.and_then(Command::get_about);
    about.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli::program::arguments;

    #[test]
    fn each_command_is_in_one_group() {
        let mut program = arguments();
        program.build();
        let commands = program.get_subcommands();
        let commands = commands.filter(|command| !command.is_hide_set());
        let commands = commands.map(Command::get_name);
        let mut missing: BTreeSet<_> = commands.collect();
        for name in GROUPS
            .iter()
            .flat_map(|group| group.common.iter().chain(group.other))
        {
            assert!(
                missing.remove(name),
                "{name} is no command, or in two groups"
            );
        }
        assert!(missing.is_empty(), "{missing:?}");
    }
}

//! The program: its arguments and subcommands.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::argument_error;
use crate::cli::argument_error::{command_name, missing_subcommand_help};
use crate::cli::exit;
use crate::cli::find::with_long_options;
use crate::cli::global_options::GlobalOptions;
use crate::cli::help::{CONNECTION, with_help};
use crate::cli::interrupt::{unless_cut_off, unless_interrupted};
use crate::cli::output::Output;
use crate::cli::remote_command::RemoteCommand;
use crate::cli::remote_session;
use crate::cli::remote_session::RemoteSession;
use crate::cli::report;
use crate::cli::serve_args;
use crate::cli::{
    backup, bench, check_config, complete_path, completions, connect, demo, discover, folder,
    healthcheck, logout, man, profiles, serve, shell, token, use_profile, user,
};

/// The time for threads to finish after the command has ended.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);

/// A file and message server for teams and their programs, and its client
#[derive(Debug, Parser)]
#[command(
    name = "haul",
    version,
    max_term_width = 100,
    // `with_help` replaces it; without it, `--help` would print the short help.
    before_long_help = "",
    infer_subcommands = false
)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: TopLevelCommand,
}

#[derive(Debug, Subcommand)]
enum TopLevelCommand {
    Serve(serve_args::ServeArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// Every command but the daemon.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    Connect(connect::ConnectArgs),
    Profiles(profiles::ProfilesArgs),
    Use(use_profile::UseArgs),
    Logout(logout::LogoutArgs),
    #[command(flatten)]
    Remote(RemoteCommand),
    Shell(shell::ShellArgs),
    Discover(discover::DiscoverArgs),
    Bench(bench::BenchArgs),
    Demo(demo::DemoArgs),
    User(user::UserArgs),
    Folder(folder::FolderArgs),
    Token(token::TokenArgs),
    Backup(backup::BackupArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Healthcheck(healthcheck::HealthcheckArgs),
    Completions(completions::CompletionsArgs),
    CompletePath(complete_path::CompletePathArgs),
    Man(man::ManArgs),
}

/// Runs the command that the arguments of this process name. The exit code is 0 if it succeeded, 1 if
/// the server refused it or a transfer failed, 2 if the arguments or the configuration are wrong, 3
/// without a connection or login, 4 if files changed during each pass of a backup, and 130 if it was
/// interrupted.
#[must_use]
pub fn main() -> ExitCode {
    let (name, cli) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return end_without_command(&error),
    };
    let output = Output::new(cli.global.json, cli.global.quiet, cli.global.no_progress);
    let outcome = match cli.command {
        // Its threads are bounded by its configuration.
        TopLevelCommand::Serve(serve) => return serve.run(),
        TopLevelCommand::Client(command) => run(command, &cli.global, output),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::report(output, &name, &error),
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn end_without_command(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let mut program = arguments();
    let name = command_name(&program, words().skip(1));
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let help = missing_subcommand_help(&mut program, &name);
            // If standard error has no reader, the exit code still reports the mistake.
            let _ = write!(std::io::stderr(), "{help}");
            ExitCode::from(exit::USAGE)
        }
        _ => {
            let help = match &*name {
                "" => "haul help".to_owned(),
                name => format!("haul {name} --help"),
            };
            let error = exit::usage(argument_error::sentence(error, &help));
            if name == "serve" {
                return serve::refuse(&error);
            }
            let output = Output::new(words().any(|word| word == "--json"), false, false);
            report::report(output, &name, &error)
        }
    }
}

/// The words of the command line, with replacement characters where they are not UTF-8.
fn words() -> impl Iterator<Item = String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned())
}

/// The arguments, and the name of the subcommand, with which messages begin.
fn parse() -> Result<(String, Cli), clap::Error> {
    let mut program = arguments();
    let matches = if command_name(&program, words().skip(1)) == "find" {
        program.try_get_matches_from_mut(with_long_options(words()))?
    } else {
        program.try_get_matches()?
    };
    let name = matches.subcommand_name().unwrap_or_default().to_owned();
    Ok((name, Cli::from_arg_matches(&matches)?))
}

/// The commands that ask no server.
const LOCAL_COMMANDS: [&str; 11] = [
    "serve",
    "user",
    "folder",
    "backup",
    "check-config",
    "healthcheck",
    "completions",
    "man",
    "discover",
    "demo",
    "use",
];

/// The arguments with their help. Commands that ask no server show no options about one.
pub(super) fn arguments() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    for name in LOCAL_COMMANDS {
        command = command.mut_subcommand(name, without_server);
    }
    // The short help of the program is a list of the commands.
    command = command.mut_args(|arg| match arg.get_help_heading() {
        Some(CONNECTION) => arg.hide_short_help(true),
        _ => arg,
    });
    with_help(command, "")
}

fn without_server(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_help_heading() {
            Some(CONNECTION) => arg.hide(true),
            _ => arg,
        })
        .mut_subcommands(without_server)
}

fn run(command: ClientCommand, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the client")?;
    let outcome = runtime.block_on(Box::pin(command.run(global, output)));
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    outcome
}

impl ClientCommand {
    async fn run(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        match self {
            Self::User(command) => command.run(global, output).await,
            Self::Folder(command) => command.run(output).await,
            Self::Token(command) => unless_interrupted(Box::pin(command.run(global, output))).await,
            Self::Backup(command) => unless_interrupted(Box::pin(command.run(output))).await,
            Self::CheckConfig(command) => command.run(output),
            Self::Healthcheck(command) => command.run(output).await,
            Self::CompletePath(command) => command.run(global).await,
            Self::Completions(command) => command.run(Cli::command()),
            Self::Man(command) => command.run(output, arguments()),
            Self::Connect(command) => unless_interrupted(command.run(global, &output)).await,
            Self::Profiles(_) => profiles::ProfilesArgs::run(global, output),
            Self::Use(command) => command.run(output).await,
            Self::Logout(command) => unless_interrupted(command.run(global, &output)).await,
            Self::Discover(command) => unless_interrupted(command.run(output)).await,
            Self::Bench(command) => command.run(global, output).await,
            Self::Shell(command) => command.run(global, output).await,
            Self::Demo(command) => unless_interrupted(command.run(output)).await,
            Self::Remote(command) => {
                let opened =
                    unless_interrupted(remote_session::open(global, command.hears())).await?;
                let remote = RemoteSession::new(opened, output, command.retry_policy());
                let work = async {
                    let outcome = command.run(&remote).await;
                    remote_session::leave(&remote.session.client()).await;
                    outcome
                };
                unless_cut_off(Box::pin(work), &remote).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config;

    #[test]
    fn the_arguments_are_put_together_soundly() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_what_asks_a_server_shows_the_options_about_one() {
        let help = |words: &[&str]| {
            let error = arguments().try_get_matches_from(words);
            error.expect_err("help").to_string()
        };
        let shown = help(&["haul", "ls", "--help"]);
        let (own, connection) = shown.split_once("Connection:").expect("a heading");
        assert!(
            own.contains("--unsorted") && !own.contains("--server <"),
            "{shown}"
        );
        assert!(connection.contains("--server <URL>"), "{shown}");
        assert!(shown.contains("--password-file") && shown.contains("--fingerprint"));
        for words in [
            &["haul", "folder", "add", "--help"][..],
            &["haul", "serve", "--help"],
        ] {
            let text = help(words);
            assert!(!text.contains("--password-file"), "{text}");
            assert!(!text.contains("--fingerprint"), "{text}");
            assert!(text.contains("Usage: haul"), "{text}");
        }
    }

    #[test]
    fn the_shell_has_every_command_that_a_session_can_run() {
        // They choose or manage a session, belong to the server's machine, or need no session.
        let others = [
            "serve",
            "connect",
            "profiles",
            "use",
            "logout",
            "shell",
            "discover",
            "bench",
            "demo",
            "user",
            "folder",
            "token",
            "backup",
            "check-config",
            "healthcheck",
            "complete-path",
            "completions",
            "man",
        ];
        let in_shell = shell::commands();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let is_known = in_shell.find_subcommand(name).is_some();
            assert_ne!(is_known, others.contains(&name), "{name}");
        }
    }

    /// The path of each command below `command`, with the command.
    fn all<'a>(command: &'a clap::Command, path: &str) -> Vec<(String, &'a clap::Command)> {
        let subs = command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help" && !sub.is_hide_set());
        let mut found = vec![(path.to_owned(), command)];
        for sub in subs {
            found.extend(all(sub, format!("{path} {}", sub.get_name()).trim()));
        }
        found
    }

    #[test]
    fn every_short_help_begins_with_two_examples_and_fits_a_screen() {
        let program = arguments();
        for (path, command) in all(&program, "") {
            let help = command.clone().term_width(100).render_help().to_string();
            let (_, examples) = help
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{path}: {help}"));
            let examples = examples
                .lines()
                .take_while(|line| line.starts_with("  haul") || line.starts_with("  man"));
            assert_eq!(examples.count(), 2, "{path}: {help}");
            let lines = help.lines().count();
            assert!(
                lines
                    <= if matches!(&*path, "" | "sync") {
                        64
                    } else {
                        44
                    },
                "{lines} lines: {help}"
            );
        }
    }

    #[test]
    fn every_summary_is_one_short_imperative_line() {
        for (path, command) in all(&arguments(), "") {
            let about = command.get_about().expect("a summary").to_string();
            assert!(
                about.chars().count() <= 90 && !about.contains('\n'),
                "{path}: {about}"
            );
            let first = about.split(' ').next().expect("a word");
            assert!(first.starts_with(char::is_uppercase), "{path}: {about}");
            assert!(path.is_empty() || !first.ends_with('s'), "{path}: {about}");
        }
    }

    #[test]
    fn a_usage_lists_no_option_that_the_environment_gives() {
        let error = arguments().try_get_matches_from(["haul", "--server", "x", "stat"]);
        let error = error.expect_err("no path").to_string();
        assert!(
            error.contains("Usage: haul stat [OPTIONS] <PATH>..."),
            "{error}"
        );
    }

    #[test]
    fn no_variable_of_an_option_is_taken_for_a_misspelt_setting() {
        let mut commands = vec![arguments()];
        let mut names = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            for variable in command.get_arguments().filter_map(clap::Arg::get_env) {
                let variable = variable.to_str().expect("UTF-8").to_owned();
                let env = || std::iter::once((variable.clone(), "x".to_owned()));
                config::Config::load(None, env()).expect("not a setting");
                assert!(config::unknown_variables(env()).is_empty(), "{variable}");
                names += 1;
            }
        }
        assert!(names > 5, "only {names} variables");
    }
}

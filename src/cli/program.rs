//! The program: its arguments and subcommands.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::exit;
use crate::cli::global_options::GlobalOptions;
use crate::cli::interrupt::{unless_cut_off, unless_interrupted};
use crate::cli::output::Output;
use crate::cli::remote_command::RemoteCommand;
use crate::cli::remote_session;
use crate::cli::remote_session::RemoteSession;
use crate::cli::serve_args;
use crate::cli::trust;
use crate::cli::{
    backup, bench, check_config, completions, connect, demo, discover, folder, healthcheck, man,
    serve, shell, token, user,
};

/// For threads that still hold a file when everything else is done.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// haul: a file server for teams and their programs.
#[derive(Debug, Parser)]
#[command(
    name = "haul",
    version,
    max_term_width = 100,
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

/// What is done and over, unlike the daemon.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    User(user::UserArgs),
    Folder(folder::FolderArgs),
    Token(token::TokenArgs),
    Backup(backup::BackupArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Healthcheck(healthcheck::HealthcheckArgs),
    Connect(connect::ConnectArgs),
    Discover(discover::DiscoverArgs),
    #[command(flatten)]
    Remote(RemoteCommand),
    Bench(bench::BenchArgs),
    Shell(shell::ShellArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Does what the arguments of this process say, and says how that went: 0 it is done, 1 the server
/// or the transfer said no, 2 the arguments or the configuration are wrong, 3 there was no connection or login,
/// 4 a backup was made while files changed all the time, 130 interrupted.
#[must_use]
pub fn main() -> ExitCode {
    let (name, cli) = match parse() {
        Ok(parsed) => parsed,
        // Help and versions are results, mistakes are errors; clap knows which go where.
        Err(error) => {
            if error.use_stderr() && is_daemon() {
                return serve::refuse(&exit::usage(exit::parsing("serve", &error)));
            }
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let outcome = match cli.command {
        // Its threads are bounded by its configuration.
        TopLevelCommand::Serve(serve) => return serve.run(),
        TopLevelCommand::Client(command) => run(command, &cli.global),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&name, &error),
    }
}

/// Whether the arguments, which make no sense, are those of the daemon.
fn is_daemon() -> bool {
    std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "serve")
}

/// The arguments, and the name of the subcommand, with which messages begin.
fn parse() -> Result<(String, Cli), clap::Error> {
    let matches = arguments().try_get_matches()?;
    let name = matches.subcommand_name().unwrap_or_default().to_owned();
    Ok((name, Cli::from_arg_matches(&matches)?))
}

/// The arguments, where the help of what asks no server shows no options about one.
fn arguments() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    for name in [
        "serve",
        "user",
        "folder",
        "token",
        "backup",
        "check-config",
        "healthcheck",
        "completions",
        "man",
        "discover",
    ] {
        command = command.mut_subcommand(name, without_server);
    }
    command
}

fn without_server(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_id().as_str() {
            "server" | "password_file" | "token_file" => arg.hide(true),
            name if trust::OPTIONS.contains(&name) => arg.hide(true),
            _ => arg,
        })
        .mut_subcommands(without_server)
}

fn run(command: ClientCommand, global: &GlobalOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start its threads")?;
    let outcome = runtime.block_on(Box::pin(command.run(global)));
    runtime.shutdown_timeout(GOODBYE_TIMEOUT);
    outcome
}

impl ClientCommand {
    async fn run(self, global: &GlobalOptions) -> anyhow::Result<()> {
        let output = Output::new(global.json, global.quiet, global.no_progress);
        match self {
            Self::User(command) => command.run(output).await,
            Self::Folder(command) => command.run(output).await,
            Self::Token(command) => command.run(output).await,
            Self::Backup(command) => unless_interrupted(Box::pin(command.run(output))).await,
            Self::CheckConfig(command) => command.run(output),
            Self::Healthcheck(command) => command.run(output).await,
            Self::Completions(command) => command.run(Cli::command()),
            Self::Man(command) => command.run(output, arguments()),
            Self::Connect(command) => unless_interrupted(command.run(global, &output)).await,
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
        assert!(shown.contains("--password-file") && shown.contains("--fingerprint"));
        for words in [
            &["haul", "user", "add", "--help"][..],
            &["haul", "serve", "--help"],
        ] {
            let text = help(words);
            assert!(!text.contains("--password-file"), "{text}");
            assert!(!text.contains("--fingerprint"), "{text}");
            assert!(text.contains("Usage: haul"), "{text}");
        }
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

//! The command line: what a person types, and what they get to see.
//!
//! Each subcommand is a file with its arguments, whose comments are its help, and its `run`.

mod accept;
mod admin;
mod audit;
mod backup;
mod bench;
mod chat;
mod check_config;
mod client_file;
mod completions;
mod connect;
mod cp;
mod data;
mod decline;
mod demo;
mod df;
mod discard;
mod discover;
mod events;
mod exit;
mod first_start;
mod folder;
mod get;
mod hash;
mod healthcheck;
mod history;
mod join;
mod known_servers;
mod leave;
mod line_editor;
mod ls;
mod man;
mod message_format;
mod mkdir;
mod mv;
mod offers;
mod output;
mod passwd;
mod password;
mod ping;
mod progress;
mod put;
mod reconnect_notice;
mod reload;
mod remote_session;
mod rm;
mod saved_login;
mod say;
mod send;
mod serve;
mod service;
mod shell;
mod signals;
mod space_message;
mod stat;
mod table;
mod token;
mod transfer;
mod trust;
mod uploads;
mod user;
mod watch;
mod who;
mod whoami;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cli::events::EventDisplay;
use crate::cli::exit::Interrupted;
use crate::cli::output::Output;
use crate::cli::remote_session::RemoteSession;
use crate::cli::trust::TrustOptions;
use crate::client::RetryPolicy;

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

/// What every subcommand takes.
#[derive(Debug, Clone, Args)]
struct GlobalOptions {
    /// The server, such as `haul://alice@host:9000`. Without it, the one that `haul connect`
    /// remembers.
    #[arg(
        long,
        global = true,
        env = "HAUL_SERVER",
        value_name = "URL",
        hide_env_values = true
    )]
    server: Option<String>,
    /// A file whose first line is the password; `HAUL_PASSWORD` holds the password itself.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "token_file"
    )]
    password_file: Option<PathBuf>,
    /// A file whose first line is a token, to log in without a password.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustOptions,
    /// Print results as JSON, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but results and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Show no progress bars.
    #[arg(long, global = true)]
    no_progress: bool,
}

#[derive(Debug, Subcommand)]
enum TopLevelCommand {
    Serve(serve::ServeArgs),
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

/// What is asked of a server, from the command line and in the shell alike.
#[derive(Debug, Subcommand)]
enum RemoteCommand {
    Ls(ls::LsArgs),
    Stat(stat::StatArgs),
    Mkdir(mkdir::MkdirArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Cp(cp::CpArgs),
    Hash(hash::HashArgs),
    Df(df::DfArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Passwd(passwd::PasswdArgs),
    Uploads(uploads::UploadsArgs),
    Discard(discard::DiscardArgs),
    Ping(ping::PingArgs),
    Whoami(whoami::WhoamiArgs),
    Who(who::WhoArgs),
    Say(say::SayArgs),
    History(history::HistoryArgs),
    Join(join::JoinArgs),
    Leave(leave::LeaveArgs),
    Chat(chat::ChatArgs),
    Send(send::SendArgs),
    Offers(offers::OffersArgs),
    Accept(accept::AcceptArgs),
    Decline(decline::DeclineArgs),
    Watch(watch::WatchArgs),
    Admin(admin::AdminArgs),
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
        let output = Output::new(global);
        match self {
            Self::User(command) => command.run(output).await,
            Self::Folder(command) => command.run(output).await,
            Self::Token(command) => command.run(output).await,
            Self::Backup(command) => unless_interrupted(Box::pin(command.run(output))).await,
            Self::CheckConfig(command) => command.run(output),
            Self::Healthcheck(command) => command.run(output).await,
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(output),
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

impl RemoteCommand {
    /// What it wants to hear of what the server says without being asked.
    fn hears(&self) -> EventDisplay {
        match self {
            Self::Chat(_) => EventDisplay::Everything,
            Self::Watch(_) => EventDisplay::Changes,
            _ => EventDisplay::Nothing,
        }
    }

    /// What is done if the connection is lost.
    fn retry_policy(&self) -> RetryPolicy {
        match self {
            Self::Get(get) => get.retry_policy(),
            Self::Put(put) => put.retry_policy(),
            Self::Chat(_) | Self::Watch(_) => RetryPolicy::FOR_EVER,
            Self::Admin(admin) => admin.retry_policy(),
            // Too short to be worth it, or not to be done twice.
            _ => RetryPolicy::NEVER,
        }
    }

    async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => command.run(remote).await,
            Self::Stat(command) => command.run(remote).await,
            Self::Mkdir(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Rm(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Mv(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Cp(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Hash(command) => command.run(remote).await,
            Self::Df(command) => command.run(remote).await,
            Self::Get(command) => command.run(remote).await,
            Self::Put(command) => command.run(remote).await,
            Self::Passwd(command) => command.run(remote).await,
            Self::Uploads(command) => command.run(remote).await,
            Self::Discard(command) => command.run(remote).await.map_err(exit::unfinished),
            Self::Ping(command) => command.run(remote).await,
            Self::Whoami(command) => command.run(remote).await,
            Self::Who(command) => command.run(remote).await,
            Self::Say(command) => command.run(remote).await,
            Self::History(command) => command.run(remote).await,
            Self::Join(command) => command.run(remote).await,
            Self::Leave(command) => command.run(remote).await,
            Self::Chat(command) => command.run(remote).await,
            Self::Send(command) => command.run(remote).await,
            Self::Offers(command) => command.run(remote).await,
            Self::Accept(command) => command.run(remote).await,
            Self::Decline(command) => command.run(remote).await,
            Self::Watch(command) => command.run(remote).await,
            Self::Admin(command) => command.run(remote).await,
        }
    }
}

/// Does `work` unless a signal comes first; what was under way is then dropped, which cleans up.
async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        outcome = work => outcome,
        signal = interruption() => {
            signal?;
            Err(Interrupted { kept: false }.into())
        }
    }
}

/// [`unless_interrupted`] for work with `remote`. What is dropped is cancelled there, except
/// uploads that could go on: the server keeps those if the connection goes away first.
async fn unless_cut_off<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    remote: &RemoteSession,
) -> anyhow::Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => outcome,
        signal = interruption() => {
            signal?;
            let kept = remote.session.has_resumable_upload();
            if kept {
                remote.session.hang_up();
            }
            Err(Interrupted { kept }.into())
        }
    }
}

/// Resolves when a signal asks this process to end.
async fn interruption() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome?,
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
}

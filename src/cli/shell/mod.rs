//! `haul shell`

pub(super) mod complete;
mod line;
pub(super) mod tokens;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches};

use crate::cli::argument_error;
use crate::cli::argument_error::command_name;
use crate::cli::events::{BackgroundPrinter, EventDisplay};
use crate::cli::exit::{Interrupted, Reported, Usage, usage};
use crate::cli::find::with_long_options;
use crate::cli::global_options::GlobalOptions;
use crate::cli::help::with_help;
use crate::cli::interrupt::{unless_cut_off, unless_interrupted};
use crate::cli::line_editor::{LineEditor, TypedLine};
use crate::cli::message_format::Style;
use crate::cli::output::{Output, print, safe};
use crate::cli::remote_command::RemoteCommand;
use crate::cli::remote_session;
use crate::cli::remote_session::{ConnectMethod, OpenedSession, RemoteSession};
use crate::cli::report::print_error;
use crate::cli::shell::complete::Completion;
use crate::cli::shell::line::{ShellCommand, ShellLine};
use crate::client::{Client, ServerUrl};

/// Work interactively, with history and completion
///
/// Type `help` for a list of the commands. Ctrl-C stops the command that runs, Ctrl-D ends the shell.
/// If standard input is not a terminal, its lines run as a script, and the exit code is 1 if a line
/// failed.
#[derive(Debug, Args)]
pub(super) struct ShellArgs {}

/// A session that goes on from line to line.
struct ShellSession<'a> {
    global: &'a GlobalOptions,
    output: Output,
    way: ConnectMethod,
    /// For the completion too, which sees a new connection at once.
    client: Arc<Mutex<Client>>,
    cwd: String,
    /// Whose session it is, whatever a token file says later.
    user: String,
    /// Shows messages and offers that come while a person types.
    aside: BackgroundPrinter,
}

impl ShellArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        let at_terminal = std::io::stdin().is_terminal();
        let aside = BackgroundPrinter::default();
        let hears = if at_terminal && !output.is_json() {
            EventDisplay::Aside(aside.clone())
        } else {
            EventDisplay::Nothing
        };
        let opened = unless_interrupted(remote_session::open(global, hears)).await?;
        aside.begin(Style::new(output, &opened.reply.user));
        let mut session = ShellSession::new(global, output, opened, aside);
        let mut lines = if at_terminal {
            output.note("type `help` for the commands");
            let completion = Completion::new(session.client.clone());
            LineEditor::edited(completion, Some("history"))?
        } else {
            LineEditor::script()?
        };
        let mut failed = false;
        loop {
            for line in session.aside.speak(lines.printer()) {
                print(&line)?;
            }
            let typed = unless_interrupted(lines.next(session.prompt())).await?;
            session.aside.hold();
            let line = match typed {
                TypedLine::Line(line) => line,
                TypedLine::Nothing => continue,
                TypedLine::End => break,
            };
            match session.run(&line).await {
                Ok(ShellStep::Line) => {}
                Ok(ShellStep::Leave) => break,
                Err(error) if !at_terminal && error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    failed = true;
                    print_error(output, &error_prefix(&line, &error), &error);
                }
            }
        }
        remote_session::leave(&session.client()).await;
        if failed && !at_terminal {
            return Err(Reported.into());
        }
        Ok(())
    }
}

/// The step after a line.
enum ShellStep {
    Line,
    Leave,
}

impl<'a> ShellSession<'a> {
    fn new(
        global: &'a GlobalOptions,
        output: Output,
        opened: OpenedSession,
        aside: BackgroundPrinter,
    ) -> Self {
        Self {
            global,
            output,
            way: opened.way,
            client: Arc::new(Mutex::new(opened.client)),
            cwd: opened.reply.home,
            user: opened.reply.user,
            aside,
        }
    }

    fn client(&self) -> Client {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn go_on_with(&self, client: Client) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn prompt(&self) -> String {
        let ServerUrl { user, host, .. } = &self.way.url;
        let user = user.as_deref().unwrap_or("");
        safe(&format!("{user}@{host}:{}> ", self.cwd)).into_owned()
    }

    /// Runs one line. Ctrl-C ends what it does, with an error.
    async fn run(&mut self, line: &str) -> anyhow::Result<ShellStep> {
        let words = tokens::split(line).map_err(usage)?;
        if words.is_empty() {
            return Ok(ShellStep::Line);
        }
        let command = match parse(words) {
            Ok(command) => command,
            Err(error) if !error.use_stderr() => {
                print(error.to_string().trim_end())?;
                return Ok(ShellStep::Line);
            }
            Err(error) => return Err(usage(argument_error::sentence(&error, &help_command(line)))),
        };
        if let ShellCommand::Remote(RemoteCommand::Put(put)) = &command
            && put.reads_stdin()
        {
            return Err(usage(
                "the shell reads its commands from standard input, so this command cannot use it",
            ));
        }
        if let ShellCommand::Remote(RemoteCommand::Passwd(_) | RemoteCommand::Chat(_)) = &command
            && !std::io::stdin().is_terminal()
        {
            return Err(usage(
                "the shell reads its commands from standard input, so this command cannot use it",
            ));
        }
        match command {
            ShellCommand::Quit => return Ok(ShellStep::Leave),
            ShellCommand::Help { command } => help(command.as_deref())?,
            ShellCommand::Lcd { path } => change_local_directory(path)?,
            ShellCommand::Lls { path } => self.list_local(path.as_deref())?,
            ShellCommand::Lpwd => {
                let here = std::env::current_dir()?.display().to_string();
                print(&safe(&here))?;
            }
            ShellCommand::Cd { path } => unless_interrupted(self.change_directory(path)).await?,
            ShellCommand::Pwd => {
                self.connected_again().await?;
                let cwd = unless_interrupted(async { Ok(self.client().pwd().await?) }).await?;
                print(&safe(&cwd))?;
            }
            ShellCommand::Remote(command @ (RemoteCommand::Chat(_) | RemoteCommand::Watch(_))) => {
                self.connected_again().await?;
                self.stay(command).await?;
            }
            ShellCommand::Remote(command) => {
                self.connected_again().await?;
                let again = (self.way.clone(), Some(self.cwd.clone()));
                let policy = command.retry_policy();
                let remote = RemoteSession::within(self.client(), again, self.output, policy);
                let outcome = unless_cut_off(Box::pin(command.run(&remote)), &remote).await;
                self.go_on_with(remote.session.client());
                outcome?;
            }
        }
        Ok(ShellStep::Line)
    }

    /// Runs what goes on until it is told to end, in a session of its own that hears everything.
    async fn stay(&self, command: RemoteCommand) -> anyhow::Result<()> {
        let way = ConnectMethod {
            hears: command.hears(),
            ..self.way.clone()
        };
        let (cwd, policy) = (self.cwd.clone(), command.retry_policy());
        let opening = RemoteSession::open_second(way, cwd, self.output, policy);
        let remote = unless_interrupted(opening).await?;
        let outcome = unless_cut_off(Box::pin(command.run(&remote)), &remote).await;
        let session = &remote.session;
        remote_session::leave(&session.client()).await;
        if let Some(heard) = session.last_event() {
            self.aside.forget(heard);
        }
        outcome
    }

    /// Connects anew if the connection is gone, and goes back to where the session was.
    async fn connected_again(&mut self) -> anyhow::Result<()> {
        let Some(lost) = self.client().lost() else {
            return Ok(());
        };
        self.output.note(&format!("{lost}; connecting again"));
        let ConnectMethod {
            url, login, hears, ..
        } = self.way.clone();
        let opening = remote_session::open_with(self.global, url, Some(login), hears);
        let opened = unless_interrupted(opening)
            .await?
            .of(Some(self.user.clone()))
            .await?;
        let client = opened.client;
        self.go_on_with(client.clone());
        let cwd = std::mem::replace(&mut self.cwd, opened.reply.home);
        self.cwd = client.cd(&cwd).await?;
        Ok(())
    }

    async fn change_directory(&mut self, path: Option<String>) -> anyhow::Result<()> {
        self.connected_again().await?;
        let path = path.unwrap_or_else(|| "/".into());
        self.cwd = self.client().cd(&path).await?;
        Ok(())
    }

    fn list_local(&self, path: Option<&Path>) -> anyhow::Result<()> {
        let path = path.unwrap_or(Path::new("."));
        let entries = path
            .read_dir()
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let slash = if entry.path().is_dir() { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().display()));
        }
        names.sort();
        self.output.results(&names, |name| safe(name).into_owned())
    }
}

/// The commands with their help. In the shell they are typed without the name of the program.
pub(super) fn commands() -> clap::Command {
    let mut line = ShellLine::command();
    line.build();
    with_help(line, "haul ")
}

fn parse(words: Vec<String>) -> Result<ShellCommand, clap::Error> {
    let is_find = words.first().is_some_and(|word| word == "find");
    let matches = if is_find {
        commands().try_get_matches_from(with_long_options(words.into_iter()))?
    } else {
        commands().try_get_matches_from(words)?
    };
    Ok(ShellLine::from_arg_matches(&matches)?.command)
}

fn help(about: Option<&str>) -> anyhow::Result<()> {
    let mut line = commands();
    if let Some(name) = about {
        let command = line
            .find_subcommand_mut(name)
            .with_context(|| format!("there is no command `{name}`; `help` lists the commands"))?;
        let help = command.render_long_help().to_string();
        print(help.trim_end())?;
        return Ok(());
    }
    let rows: Vec<_> = line.get_subcommands().map(summary).collect();
    let width = rows.iter().map(|(usage, _)| usage.chars().count()).max();
    let width = width.unwrap_or(0);
    for (usage, about) in rows {
        print(&format!("{usage:width$}  {about}"))?;
    }
    Ok(())
}

/// The name with which the message about an error begins, as on the command line.
fn error_prefix(line: &str, error: &anyhow::Error) -> String {
    let words = line.split_whitespace().map(str::to_owned);
    let name = command_name(&commands(), words);
    match name.split_once(' ') {
        Some((first, _)) if !error.is::<Usage>() => first.to_owned(),
        _ => name,
    }
}

/// The command that explains the one in `line`.
fn help_command(line: &str) -> String {
    let words = line.split_whitespace().map(str::to_owned);
    match command_name(&commands(), words) {
        name if name.is_empty() => "help".to_owned(),
        name => format!("{name} --help"),
    }
}

/// The arguments and the purpose of a command.
fn summary(command: &clap::Command) -> (String, String) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage: ")
        .replace(" [OPTIONS]", "")
        .replace("...", "…")
        .replace(['<', '>'], "");
    let about = command.get_about().map(ToString::to_string);
    (usage, about.unwrap_or_default())
}

fn change_local_directory(path: Option<PathBuf>) -> anyhow::Result<()> {
    let path = match path {
        Some(path) => path,
        None => etcetera::home_dir().context("there is no home directory")?,
    };
    std::env::set_current_dir(&path).with_context(|| format!("cannot change to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_shell_are_put_together_soundly() {
        ShellLine::command().debug_assert();
    }

    #[test]
    fn no_usage_names_a_program_that_nobody_types_in_the_shell() {
        for command in commands().get_subcommands_mut() {
            let name = command.get_name().to_owned();
            for text in [
                command.render_usage().to_string(),
                command.render_long_help().to_string(),
                parse(vec![name.clone(), "--help".into()])
                    .expect_err("help")
                    .to_string(),
                parse(vec![name.clone(), "--nonsense".into()])
                    .expect_err("wrong")
                    .to_string(),
            ] {
                assert!(text.contains(&format!("Usage: {name}")), "{text}");
                assert!(!text.contains("haul "), "{text}");
            }
        }
    }

    #[test]
    fn an_error_begins_with_the_command_if_there_is_one() {
        for (line, prefix) in [
            ("admin user bad", "admin user"),
            ("ls --bad", "ls"),
            ("bad", ""),
        ] {
            assert_eq!(error_prefix(line, &usage("wrong")), prefix, "{line}");
        }
        assert_eq!(error_prefix("admin users", &Reported.into()), "admin");
    }

    #[test]
    fn help_shows_what_a_command_takes() {
        let usages: Vec<_> = commands()
            .get_subcommands()
            .map(|command| summary(command).0)
            .collect();
        for usage in [
            "cd [PATH]",
            "get REMOTE… [LOCAL]",
            "mv FROM… TO",
            "ls [PATH]…",
            "pwd",
        ] {
            assert!(
                usages.iter().any(|known| known == usage),
                "{usage}: {usages:?}"
            );
        }
    }
}

//! The command line: one file per subcommand, where the doc comment is the help.

mod check_config;
mod completions;
mod data;
mod folder;
mod output;
mod password;
mod table;
mod token;
mod user;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Output;

/// A file and message server for teams and their programs, and the client that goes with it.
#[derive(Debug, Parser)]
#[command(name = "haul", version)]
struct Cli {
    /// Print results as JSON, one object per line.
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but results and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    User(user::User),
    Folder(folder::Folder),
    Token(token::Token),
    CheckConfig(check_config::CheckConfig),
    Completions(completions::Completions),
}

/// Does what the arguments of this process say. Says how that went: 0 it is done, 1 it could not
/// be, 2 the arguments are wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json, cli.quiet);
    let result = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(Box::pin(cli.command.run(&output))));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the results has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::say(&format!("haul: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

impl Command {
    async fn run(self, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::User(command) => command.run(output).await,
            Self::Folder(command) => command.run(output).await,
            Self::Token(command) => command.run(output).await,
            Self::CheckConfig(command) => command.run(output),
            Self::Completions(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_put_together_soundly() {
        Cli::command().debug_assert();
    }
}

//! `haul completions`: what a shell needs to complete haul's arguments.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

/// The paths on the server for bash, in place of the local ones that it would offer.
const BASH_PATHS: &str = include_str!("completions/paths.bash");

/// The function of zsh that offers the paths on the server, and all else by the generated one.
const ZSH_PATHS: &str = include_str!("completions/paths.zsh");

/// The paths on the server for fish.
const FISH_PATHS: &str = include_str!("completions/paths.fish");

/// Print a script that completes commands, options and paths in a shell
///
/// In bash, zsh and fish, paths on the server are completed through the current profile, if the server
/// answers within a second.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(self, mut command: Command) -> anyhow::Result<()> {
        // Generated as a whole first: a pipe that closes early is an error here, not a panic.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "haul", &mut script);
        let script = String::from_utf8(script).context("the script is not UTF-8")?;
        let script = match self.shell {
            Shell::Bash => script + BASH_PATHS,
            Shell::Fish => script + FISH_PATHS,
            Shell::Zsh => with_zsh_paths(&script)?,
            _ => script,
        };
        io::stdout().lock().write_all(script.as_bytes())?;
        Ok(())
    }
}

/// Renames the generated function and puts the other one before the end, which registers it.
fn with_zsh_paths(script: &str) -> anyhow::Result<String> {
    let script = script.replacen("\n_haul() {", "\n_haul_arguments() {", 1);
    let end = script
        .rfind("\nif [ ")
        .context("the script for zsh has no end")?;
    let (functions, registration) = script.split_at(end);
    Ok(format!("{functions}\n{ZSH_PATHS}{registration}"))
}

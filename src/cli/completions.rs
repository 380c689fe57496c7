//! `haul completions`: what a shell needs to complete haul's arguments.

use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

/// Print a script that completes commands and options in a shell
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
        io::stdout().lock().write_all(&script)?;
        Ok(())
    }
}

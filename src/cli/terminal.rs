//! The terminal of this process.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

use anyhow::Context;
use tokio::task::spawn_blocking;

/// Whether there is a person who can be asked.
pub(crate) fn is_terminal() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks the person at the terminal. Everything but `y` and `yes` is a no.
pub(crate) async fn is_agreed(question: String) -> anyhow::Result<bool> {
    spawn_blocking(move || {
        write!(stderr(), "{question}")?;
        let mut answer = String::new();
        stdin().lock().read_line(&mut answer).context("no answer")?;
        let answer = answer.trim().to_ascii_lowercase();
        Ok(matches!(&*answer, "y" | "yes"))
    })
    .await?
}

//! Asking for a password: a new one twice on a terminal, and one line of standard input otherwise.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, bail};

use crate::cli::exit::Interrupted;
use crate::protocol::Secret;

/// The limit of a line; no password is that long.
const MAX_LINE_BYTES: u64 = 4096;

/// A new password for `user`.
pub(super) fn new_password(user: &str) -> anyhow::Result<Secret> {
    if !io::stdin().is_terminal() {
        return read_line(io::stdin().lock());
    }
    ask_twice(&format!("Password for {user}"))
}

fn ask_twice(prompt: &str) -> anyhow::Result<Secret> {
    let first = ask(format!("{prompt}: "))?;
    if ask(format!("{prompt} again: "))? != first {
        bail!("the two passwords differ, so nothing was changed; try again");
    }
    Ok(Secret::new(first))
}

/// The current and a new password of the user who is logged in.
pub(super) fn changed_password() -> anyhow::Result<(Secret, Secret)> {
    if !io::stdin().is_terminal() {
        let mut input = io::stdin().lock();
        return Ok((read_line(&mut input)?, read_line(&mut input)?));
    }
    let old = ask("Current password: ".into())?;
    let new = ask_twice("New password")?;
    Ok((Secret::new(old), new))
}

fn ask(prompt: String) -> anyhow::Result<String> {
    rpassword::prompt_password(prompt).map_err(unasked)
}

/// Ctrl-C at the prompt is no failure.
fn unasked(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => Interrupted { kept: false }.into(),
        _ => anyhow::Error::new(error).context("cannot ask for a password"),
    }
}

fn read_line(input: impl BufRead) -> anyhow::Result<Secret> {
    let mut line = String::new();
    let mut input = input.take(MAX_LINE_BYTES);
    input
        .read_line(&mut line)
        .context("cannot read the password from standard input")?;
    if line.is_empty() {
        bail!(
            "there is no password on standard input; write it there as one line, or use a terminal"
        );
    }
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line_without_its_end() {
        for (input, password) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            (" hunter 2 \nmore\n", " hunter 2 "),
            ("\n", ""),
        ] {
            let read = read_line(input.as_bytes()).expect("a line");
            assert_eq!(read.expose(), password, "{input:?}");
        }
    }

    #[test]
    fn an_interrupt_at_the_prompt_is_one() {
        assert!(unasked(io::ErrorKind::Interrupted.into()).is::<Interrupted>());
        assert!(!unasked(io::ErrorKind::NotFound.into()).is::<Interrupted>());
    }

    #[test]
    fn no_line_and_no_text_are_refused() {
        let message = read_line(&b""[..]).expect_err("nothing").to_string();
        assert!(message.starts_with("there is no password"), "{message}");
        assert!(read_line(&b"\xff\n"[..]).is_err());
    }
}

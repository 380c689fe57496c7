//! `haul complete-path`: the paths on the server that the completion of a shell offers.

use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use crate::cli::global_options::GlobalOptions;
use crate::cli::output::print;
use crate::cli::remote_session::{leave, open_unattended};
use crate::cli::shell::complete::{PathSide, local, path_side, remote};
use crate::cli::shell::tokens::words;

/// For everything: connecting, logging in and listing. A tab key that takes longer is of no use.
const DEADLINE: Duration = Duration::from_secs(1);

/// The options of the program that have a value.
const OPTIONS_WITH_VALUE: [&str; 9] = [
    "-P",
    "--profile",
    "--server",
    "--password-file",
    "--token-file",
    "--fingerprint",
    "--ca",
    "--cert",
    "--key",
];

/// Print the paths on the server that can complete a command line
///
/// The scripts of `haul completions` call this. It asks nothing, prints no errors, and ends within
/// about a second.
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct CompletePathArgs {
    /// The words of the line behind `haul`, as typed; the last one is to be completed
    #[arg(
        required = true,
        value_name = "WORD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    typed: Vec<String>,
}

/// A command line that ends with an unfinished word.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnfinishedLine {
    profile: Option<String>,
    server: Option<String>,
    command: Option<String>,
    arguments: Vec<String>,
    /// The word to complete.
    word: String,
}

impl CompletePathArgs {
    pub(super) async fn run(self, global: &GlobalOptions) -> anyhow::Result<()> {
        let line = UnfinishedLine::new(&self.typed);
        // Errors would be printed into the line that is being typed.
        let Ok(Ok(paths)) = timeout(DEADLINE, line.paths(global)).await else {
            return Ok(());
        };
        if !paths.is_empty() {
            print(&paths.join("\n"))?;
        }
        Ok(())
    }
}

impl UnfinishedLine {
    fn new(typed: &[String]) -> Self {
        let mut unquoted = typed.iter().map(|word| unquoted(word)).collect::<Vec<_>>();
        let mut line = Self {
            word: unquoted.pop().unwrap_or_default(),
            ..Self::default()
        };
        let mut unquoted = unquoted.into_iter();
        while let Some(word) = unquoted.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if word.starts_with("--") => (option, Some(value.to_owned())),
                _ if OPTIONS_WITH_VALUE.contains(&&*word) => (&*word, unquoted.next()),
                _ => (&*word, None),
            };
            match option {
                "-P" | "--profile" => line.profile = value,
                "--server" => line.server = value,
                _ if line.command.is_some() => line.arguments.push(word),
                option if option.starts_with('-') => {}
                _ => line.command = Some(word),
            }
        }
        line
    }

    async fn paths(self, global: &GlobalOptions) -> anyhow::Result<Vec<String>> {
        let side = self.command.as_deref();
        let side = side.and_then(|command| path_side(command, &self.arguments));
        let is_local_too = match side {
            _ if self.word.starts_with('-') => return Ok(Vec::new()),
            Some(PathSide::Remote) => false,
            Some(PathSide::Both) => true,
            Some(PathSide::Marked) if self.word.starts_with(':') => false,
            // The shell completes local paths itself.
            Some(PathSide::Local | PathSide::Marked) | None => return Ok(Vec::new()),
        };
        let mut global = global.clone();
        if let Some(profile) = self.profile {
            global.profile = Some(profile.parse()?);
        }
        global.server = self.server.or(global.server);
        let (mark, path) = match self.word.strip_prefix(':') {
            Some(path) => (":", path),
            None => ("", &*self.word),
        };
        let mut candidates = match open_unattended(&global).await? {
            Some(client) => {
                let found = remote(&client, path).await;
                leave(&client).await;
                found?
            }
            None => Vec::new(),
        };
        if is_local_too && mark.is_empty() {
            candidates.extend(local(path));
        }
        let paths = candidates.into_iter();
        Ok(paths.map(|found| format!("{mark}{}", found.word)).collect())
    }
}

/// A word without the quotes and backslashes of the shell. Its last quote may be open.
fn unquoted(word: &str) -> String {
    let words = words(word).into_iter().map(|word| word.text);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> UnfinishedLine {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        UnfinishedLine::new(&words)
    }

    #[test]
    fn a_line_is_read_with_its_profile_and_without_quotes() {
        let read = line(&["-P", "work", "--quiet", "ls", "-l", r"my\ own", "\"a b"]);
        let expected = UnfinishedLine {
            profile: Some("work".into()),
            server: None,
            command: Some("ls".into()),
            arguments: vec!["-l".into(), "my own".into()],
            word: "a b".into(),
        };
        assert_eq!(read, expected);
        let read = line(&["ls", "--server=haul://h", ""]);
        assert_eq!(read.server.as_deref(), Some("haul://h"));
        assert_eq!(line(&["l"]).command, None);
    }
}

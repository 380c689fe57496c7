//! The tab key: commands, paths on the server and local paths.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::CommandFactory;
use futures::stream::{StreamExt, TryStreamExt};
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::cli::output::safe;
use crate::cli::shell::line::ShellLine;
use crate::cli::shell::tokens::{escaped, quoted, words};
use crate::client::{Client, ClientError};
use crate::protocol::Kind;

/// A tab key that takes longer is of no use.
const PATIENCE: Duration = Duration::from_secs(3);

/// Entries of a directory that are looked at.
const ENTRIES: usize = 10_000;

/// Completes what is typed, with what the session of the moment sees.
#[derive(Debug)]
pub(super) struct Completion {
    client: Arc<Mutex<Client>>,
    runtime: Handle,
}

/// Something that a word can become.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompletionCandidate {
    /// The whole word.
    pub(crate) word: String,
    /// The part of it that is shown in a list.
    shown: String,
    /// Whether the word is complete with it; a directory may go on.
    is_whole: bool,
}

/// The kind of paths that a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathSide {
    Local,
    Remote,
    Both,
    /// A colon marks those on the server; the others are local.
    Marked,
}

impl Completion {
    pub(super) fn new(client: Arc<Mutex<Client>>) -> Self {
        Self {
            client,
            runtime: Handle::current(),
        }
    }

    fn choices(&self, before: &[String], word: &str) -> Vec<CompletionCandidate> {
        let [command, arguments @ ..] = before else {
            return commands(&ShellLine::command(), word);
        };
        let mut choices = Vec::new();
        let mut side = path_side(command, arguments);
        if let ("get" | "put" | "sync", Some(path)) = (&**command, word.strip_prefix(':'))
            && matches!(
                side,
                Some(PathSide::Remote | PathSide::Both | PathSide::Marked)
            )
        {
            // A colon marks a path on the server.
            side = None;
            choices.extend(
                self.candidates(path)
                    .into_iter()
                    .map(|choice| CompletionCandidate {
                        word: format!(":{}", choice.word),
                        ..choice
                    }),
            );
        }
        if matches!(side, Some(PathSide::Remote | PathSide::Both)) {
            choices.extend(self.candidates(word));
        }
        if matches!(
            side,
            Some(PathSide::Local | PathSide::Both | PathSide::Marked)
        ) {
            choices.extend(local(word));
        }
        if command == "help" {
            choices = commands(&ShellLine::command(), word);
        } else if arguments.is_empty()
            && let Some(command) = ShellLine::command().find_subcommand(command)
        {
            choices.extend(commands(command, word));
        }
        choices.sort_by(|a, b| a.word.cmp(&b.word));
        choices.dedup_by(|a, b| a.word == b.word);
        choices
    }

    fn candidates(&self, word: &str) -> Vec<CompletionCandidate> {
        let client = self
            .client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let found = remote(&client, word);
        let found = self
            .runtime
            .block_on(async { timeout(PATIENCE, found).await });
        found.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// The paths on the server that the word can become.
pub(crate) async fn remote(
    client: &Client,
    word: &str,
) -> Result<Vec<CompletionCandidate>, ClientError> {
    let (directory, stem) = cut(word);
    let path = if directory.is_empty() { "." } else { directory };
    let entries = client.entries(path).take(ENTRIES);
    let found = entries.try_filter_map(async |entry| {
        let is_directory = entry.kind == Kind::Dir;
        Ok(choice(directory, stem, &entry.name, is_directory))
    });
    found.try_collect().await
}

/// Which paths come next.
pub(crate) fn path_side(command: &str, arguments: &[String]) -> Option<PathSide> {
    let is_to = |word: &String| matches!(&**word, "-t" | "--to");
    if let ("get" | "put", Some(last)) = (command, arguments.last())
        && is_to(last)
    {
        return Some(if command == "get" {
            PathSide::Local
        } else {
            PathSide::Remote
        });
    }
    let has_to = arguments.iter().any(is_to);
    let paths = arguments.iter().filter(|word| !word.starts_with('-'));
    match (command, paths.count()) {
        ("put", _) if has_to => Some(PathSide::Local),
        ("get", _) if has_to => Some(PathSide::Remote),
        ("lcd" | "lls", _) | ("put", 0) => Some(PathSide::Local),
        ("get", 1..) | ("put", _) => Some(PathSide::Both),
        ("sync", _) => Some(PathSide::Marked),
        (
            "get" | "ls" | "cat" | "stat" | "find" | "tree" | "du" | "mkdir" | "rm" | "mv" | "cp"
            | "hash" | "cd" | "watch",
            _,
        )
        | ("send" | "accept", 1) => Some(PathSide::Remote),
        _ => None,
    }
}

/// The subcommands of a command.
fn commands(command: &clap::Command, word: &str) -> Vec<CompletionCandidate> {
    command
        .get_subcommands()
        .map(clap::Command::get_name)
        .filter(|name| name.starts_with(word))
        .map(|name| CompletionCandidate {
            word: name.to_owned(),
            shown: name.to_owned(),
            is_whole: true,
        })
        .collect()
}

/// The local paths that the word can become.
pub(crate) fn local(word: &str) -> Vec<CompletionCandidate> {
    let (directory, stem) = cut(word);
    let path = if directory.is_empty() { "." } else { directory };
    let Ok(entries) = Path::new(path).read_dir() else {
        return Vec::new();
    };
    entries
        .take(ENTRIES)
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            choice(directory, stem, name.to_str()?, entry.path().is_dir())
        })
        .collect()
}

/// The completion of the word by a name, if it fits. Hidden names show once the dot is typed, and names
/// that could control the terminal never.
fn choice(
    directory: &str,
    stem: &str,
    name: &str,
    is_directory: bool,
) -> Option<CompletionCandidate> {
    let is_hidden = name.starts_with('.') && !stem.starts_with('.');
    if !name.starts_with(stem) || is_hidden || safe(name) != name {
        return None;
    }
    let slash = if is_directory { "/" } else { "" };
    Some(CompletionCandidate {
        word: format!("{directory}{name}{slash}"),
        shown: format!("{name}{slash}"),
        is_whole: !is_directory,
    })
}

/// A path as directory, with its slash, and the beginning of a name.
fn cut(word: &str) -> (&str, &str) {
    word.split_at(word.rfind('/').map_or(0, |slash| slash + 1))
}

/// The choices as they are to be typed, in quotes if the word began with one.
fn typed(choices: Vec<CompletionCandidate>, in_quotes: bool) -> Vec<Pair> {
    choices
        .into_iter()
        .map(|choice| {
            let (mut replacement, end) = if in_quotes {
                (quoted(&choice.word), "\" ")
            } else {
                (escaped(&choice.word), " ")
            };
            if choice.is_whole {
                replacement.push_str(end);
            }
            Pair {
                display: choice.shown,
                replacement,
            }
        })
        .collect()
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = &line[..pos];
        let mut before = words(line);
        // Behind a blank a new word begins.
        let is_new = before
            .last()
            .is_none_or(|word| !word.is_open && line.ends_with(char::is_whitespace));
        let (start, word) = match before.pop_if(|_| !is_new) {
            Some(word) => (word.start, word.text),
            None => (pos, String::new()),
        };
        let before: Vec<_> = before.into_iter().map(|word| word.text).collect();
        let in_quotes = line[start..].starts_with(['"', '\'']);
        Ok((start, typed(self.choices(&before, &word), in_quotes)))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use rustyline::history::DefaultHistory;
    use tokio::io::duplex;

    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let (near, _far) = duplex(64);
        let completion = Completion::new(Arc::new(Mutex::new(Client::from_stream(near))));
        let history = DefaultHistory::new();
        let (start, pairs) = completion
            .complete(line, line.len(), &Context::new(&history))
            .expect("no error");
        let replacements = pairs.into_iter().map(|pair| pair.replacement);
        (start, replacements.collect())
    }

    #[test]
    fn a_command_is_completed_by_its_beginning() {
        assert_eq!(complete("  whoa"), (2, vec!["whoami ".to_owned()]));
        assert_eq!(complete("help mk"), (5, vec!["mkdir ".to_owned()]));
        assert!(complete("").1.contains(&"lcd ".to_owned()));
    }

    #[test]
    fn what_a_command_is_made_of_is_completed_too() {
        assert_eq!(complete("admin se").1, ["sessions "]);
        assert_eq!(complete("admin sessions se").1, [""; 0]);
    }

    #[test]
    fn a_name_with_blanks_is_completed_as_it_was_begun() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("my own")).expect("made");
        std::fs::write(directory.path().join("my own/a \"b\""), "").expect("written");
        std::fs::write(directory.path().join(".hidden"), "").expect("written");
        let root = directory.path().display();
        for (line, completed) in [
            (format!("put {root}/"), format!(r"{root}/my\ own/")),
            (format!(r"put {root}/my\ o"), format!(r"{root}/my\ own/")),
            (format!("put \"{root}/my o"), format!("\"{root}/my own/")),
            (
                format!("put \"{root}/my own/"),
                format!(r#""{root}/my own/a \"b\"" "#),
            ),
        ] {
            assert_eq!(complete(&line), (4, vec![completed]), "{line}");
        }
    }

    #[test]
    fn get_and_put_know_their_sides() {
        let one = [String::from("--verbose"), String::from("a")];
        assert_eq!(path_side("get", &[]), Some(PathSide::Remote));
        assert_eq!(path_side("put", &one[..1]), Some(PathSide::Local));
        assert_eq!(path_side("put", &one), Some(PathSide::Both));
        let to = ["-t".to_owned(), "d".to_owned()];
        assert_eq!(path_side("get", &to[..1]), Some(PathSide::Local));
        assert_eq!(path_side("put", &to[..1]), Some(PathSide::Remote));
        assert_eq!(path_side("get", &to), Some(PathSide::Remote));
        assert_eq!(path_side("put", &to), Some(PathSide::Local));
        assert_eq!(path_side("sync", &one), Some(PathSide::Marked));
        assert_eq!(path_side("whoami", &[]), None);
    }
}

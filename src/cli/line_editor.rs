//! Where the lines of the shell and of a chat come from: an editor at a terminal, or a script; and
//! printing above the line that someone types.

use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::{BaseStrategy, choose_base_strategy};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter, Helper};
use tokio::sync::mpsc;

use crate::cli::client_file;
use crate::cli::output::{Output, print};
use crate::cli::report::print_error;

/// Lines that a history keeps.
const HISTORY_ENTRIES: usize = 1000;

/// A line that was typed at the prompt.
#[derive(Debug)]
pub(crate) enum TypedLine {
    Line(String),
    /// Ctrl-C: the line is given up.
    Nothing,
    /// Ctrl-D, or the end of the script.
    End,
}

/// Reads on a thread of its own, so that the wait for a person keeps nobody else waiting.
#[derive(Debug)]
pub(crate) struct LineEditor {
    prompts: std::sync::mpsc::Sender<String>,
    typed: mpsc::Receiver<anyhow::Result<TypedLine>>,
    printer: Printer,
    /// A line was asked for and did not come yet.
    asked: bool,
    /// The terminal as it was before an editor had it.
    terminal: Option<Termios>,
}

impl LineEditor {
    /// An editor with what `helper` completes, and with a history that is kept if it has a `name`.
    pub(crate) fn edited<H: Helper + Send + 'static>(
        helper: H,
        name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .history_ignore_dups(true)?
            .max_history_size(HISTORY_ENTRIES)?
            .build();
        let mut editor = Editor::<H, DefaultHistory>::with_config(config)?;
        editor.set_helper(Some(helper));
        let mut history = name.and_then(state_file);
        if let Some(path) = &history
            && let Err(error) = load_history(&mut editor, path)
        {
            print_error(Output::TEXT, "history", &error);
            history = None;
        }
        // A terminal that can do nothing has nothing to print above.
        let printer = match editor.create_external_printer() {
            Ok(printer) => Printer::above(printer)?,
            Err(_) => Printer::Plain,
        };
        let terminal = tcgetattr(stdin()).ok();
        let mut lines = Self::start(printer, move |prompt| {
            edit(&mut editor, &prompt, &mut history)
        })?;
        lines.terminal = terminal;
        Ok(lines)
    }

    /// Standard input, line by line.
    pub(crate) fn script() -> anyhow::Result<Self> {
        Self::start(Printer::Plain, |_| {
            let mut line = String::new();
            match stdin().lock().read_line(&mut line) {
                Ok(0) => Ok(TypedLine::End),
                Ok(_) => Ok(TypedLine::Line(line)),
                Err(error) => Err(error).context("cannot read standard input"),
            }
        })
    }

    fn start(
        printer: Printer,
        mut read: impl FnMut(String) -> anyhow::Result<TypedLine> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (prompts, prompted) = std::sync::mpsc::channel();
        let (sender, typed) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("lines".into())
            .spawn(move || {
                while let Ok(prompt) = prompted.recv() {
                    if sender.blocking_send(read(prompt)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            prompts,
            typed,
            printer,
            asked: false,
            terminal: None,
        })
    }

    /// The next line.
    pub(crate) async fn next(&mut self, prompt: String) -> anyhow::Result<TypedLine> {
        self.ask(prompt)?;
        self.typed().await
    }

    /// Asks for a line, which [`typed`](Self::typed) then returns.
    pub(crate) fn ask(&mut self, prompt: String) -> anyhow::Result<()> {
        self.asked = true;
        self.prompts.send(prompt).context(EDITOR_ENDED)
    }

    /// The line that was asked for. Cancel-safe.
    pub(crate) async fn typed(&mut self) -> anyhow::Result<TypedLine> {
        let typed = self.typed.recv().await;
        self.asked = false;
        typed.context(EDITOR_ENDED)?
    }

    /// Prints while someone may be typing.
    pub(crate) fn printer(&self) -> Printer {
        self.printer.clone()
    }
}

impl Drop for LineEditor {
    /// After a signal, the editor may still wait for a line that nobody will type.
    fn drop(&mut self) {
        if let Some(terminal) = self.terminal.take()
            && self.asked
        {
            // Without bracketed paste, and off the line of the prompt.
            let _ = print("\x1b[?2004l");
            let _ = tcsetattr(stdin(), OptionalActions::Now, &terminal);
        }
    }
}

const EDITOR_ENDED: &str = "the thread that reads lines has ended";

/// Lines that may wait to be printed.
const MAX_UNPRINTED_LINES: usize = 64;

/// The way to the terminal while a line is being typed: what is printed stands above it.
#[derive(Debug, Clone)]
pub(crate) enum Printer {
    /// Nobody types.
    Plain,
    /// To a thread, for the editor may be busy.
    Above(mpsc::Sender<String>),
}

impl Printer {
    fn above(mut printer: impl ExternalPrinter + Send + 'static) -> anyhow::Result<Self> {
        let (sender, mut lines) = mpsc::channel::<String>(MAX_UNPRINTED_LINES);
        std::thread::Builder::new()
            .name("printer".into())
            .spawn(move || {
                while let Some(lines) = lines.blocking_recv() {
                    if printer.print(lines).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self::Above(sender))
    }

    /// Prints whole lines that are safe, without the last line end.
    pub(crate) async fn print(&self, mut lines: String) -> std::io::Result<()> {
        match self {
            Self::Plain => print(&lines),
            Self::Above(thread) => {
                lines.push('\n');
                let gone = |_| std::io::ErrorKind::BrokenPipe.into();
                thread.send(lines).await.map_err(gone)
            }
        }
    }
}

fn edit<H: Helper>(
    editor: &mut Editor<H, DefaultHistory>,
    prompt: &str,
    history: &mut Option<PathBuf>,
) -> anyhow::Result<TypedLine> {
    match editor.readline(prompt) {
        Ok(line) => {
            if let (Ok(true), Some(path)) = (editor.add_history_entry(&line), &*history)
                && let Err(error) = append_to_history(path, &line)
            {
                // It is no reason to stop, and said once.
                print_error(Output::TEXT, "history", &error);
                *history = None;
            }
            Ok(TypedLine::Line(line))
        }
        Err(ReadlineError::Interrupted) => Ok(TypedLine::Nothing),
        Err(ReadlineError::Eof) => Ok(TypedLine::End),
        Err(error) => Err(error).context("cannot read from the terminal"),
    }
}

/// The first line of the editor's files: line feeds and backslashes are escaped in the others.
const HISTORY_HEADER: &str = "#V2";

fn load_history<H: Helper>(
    editor: &mut Editor<H, DefaultHistory>,
    path: &Path,
) -> anyhow::Result<()> {
    if client_file::read(path)?.is_some() {
        let loaded = editor.load_history(path);
        loaded.with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(())
}

/// Adds a line, behind those that other shells have added meanwhile.
fn append_to_history(path: &Path, line: &str) -> anyhow::Result<()> {
    client_file::update(path, |old| {
        let old: Vec<_> = old.unwrap_or_default().lines().collect();
        let old = old.strip_prefix(&[HISTORY_HEADER]).unwrap_or(&old);
        let line = line.replace('\\', r"\\").replace('\n', r"\n");
        let kept = &old[old.len().saturating_sub(HISTORY_ENTRIES - 1)..];
        let lines = [HISTORY_HEADER].into_iter().chain(kept.iter().copied());
        let mut text = lines.chain([&*line]).collect::<Vec<_>>().join("\n");
        text.push('\n');
        Ok(text)
    })
}

/// A file of this user's state, in a directory that exists.
pub(super) fn state_file(name: &str) -> Option<PathBuf> {
    let strategy = choose_base_strategy().ok()?;
    let directory = strategy
        .state_dir()
        .unwrap_or_else(|| strategy.data_dir())
        .join("haul");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_shells_are_all_in_the_history_as_they_were_typed() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("history");
        let typed = [r"put a\ b", "ls", "pasted\nlines", r"\n"];
        for line in typed {
            append_to_history(&path, line).expect("written");
        }
        let mut editor = Editor::<(), DefaultHistory>::new().expect("an editor");
        load_history(&mut editor, &path).expect("read");
        let entries: Vec<_> = editor.history().iter().map(String::as_str).collect();
        assert_eq!(entries, typed);
    }

    #[test]
    fn a_history_keeps_the_last_lines() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("history");
        let many = "a line\n".repeat(2 * HISTORY_ENTRIES);
        std::fs::write(&path, format!("{HISTORY_HEADER}\n{many}")).expect("written");
        append_to_history(&path, "last").expect("written");
        let text = client_file::read(&path).expect("sound").expect("there");
        assert_eq!(text.lines().count(), 1 + HISTORY_ENTRIES);
        assert!(text.ends_with("\na line\nlast\n"));
    }
}

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

use super::output::print;

/// What was typed at the prompt.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C: the line is given up.
    Nothing,
    /// Ctrl-D, or the end of the script.
    End,
}

/// Reads on a thread of its own, so that the wait for a person keeps nobody else waiting.
#[derive(Debug)]
pub(super) struct Lines {
    prompts: std::sync::mpsc::Sender<String>,
    typed: mpsc::Receiver<anyhow::Result<Typed>>,
    printer: Printer,
    /// A line was asked for and did not come yet.
    asked: bool,
    /// The terminal as it was before an editor had it.
    terminal: Option<Termios>,
}

impl Lines {
    /// An editor with what `helper` completes, and with a history that is kept if it has a `name`.
    pub(super) fn edited<H: Helper + Send + 'static>(
        helper: H,
        name: Option<&str>,
    ) -> anyhow::Result<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .history_ignore_dups(true)?
            .build();
        let mut editor = Editor::<H, DefaultHistory>::with_config(config)?;
        editor.set_helper(Some(helper));
        let history = name.and_then(history);
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        // A terminal that can do nothing has nothing to print above.
        let printer = match editor.create_external_printer() {
            Ok(printer) => Printer::above(printer)?,
            Err(_) => Printer::Plain,
        };
        let terminal = tcgetattr(stdin()).ok();
        let mut lines = Self::start(printer, move |prompt| {
            edit(&mut editor, &prompt, history.as_deref())
        })?;
        lines.terminal = terminal;
        Ok(lines)
    }

    /// Standard input, line by line.
    pub(super) fn script() -> anyhow::Result<Self> {
        Self::start(Printer::Plain, |_| {
            let mut line = String::new();
            match stdin().lock().read_line(&mut line) {
                Ok(0) => Ok(Typed::End),
                Ok(_) => Ok(Typed::Line(line)),
                Err(error) => Err(error).context("could not read standard input"),
            }
        })
    }

    fn start(
        printer: Printer,
        mut read: impl FnMut(String) -> anyhow::Result<Typed> + Send + 'static,
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
    pub(super) async fn next(&mut self, prompt: String) -> anyhow::Result<Typed> {
        self.ask(prompt)?;
        self.typed().await
    }

    /// Asks for a line, which [`typed`](Self::typed) then returns.
    pub(super) fn ask(&mut self, prompt: String) -> anyhow::Result<()> {
        self.asked = true;
        self.prompts.send(prompt).context(GONE)
    }

    /// The line that was asked for. Cancel-safe.
    pub(super) async fn typed(&mut self) -> anyhow::Result<Typed> {
        let typed = self.typed.recv().await;
        self.asked = false;
        typed.context(GONE)?
    }

    /// Prints while someone may be typing.
    pub(super) fn printer(&self) -> Printer {
        self.printer.clone()
    }
}

impl Drop for Lines {
    /// Who is stopped by a signal leaves a line that will never be typed to an editor that goes on.
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

const GONE: &str = "the thread that reads lines has ended";

/// Lines that may wait to be printed.
const UNPRINTED: usize = 64;

/// The way to the terminal while a line is being typed: what is printed stands above it.
#[derive(Debug, Clone)]
pub(super) enum Printer {
    /// Nobody types.
    Plain,
    /// To a thread, for the editor may be busy.
    Above(mpsc::Sender<String>),
}

impl Printer {
    fn above(mut printer: impl ExternalPrinter + Send + 'static) -> anyhow::Result<Self> {
        let (sender, mut lines) = mpsc::channel::<String>(UNPRINTED);
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
    pub(super) async fn print(&self, mut lines: String) -> std::io::Result<()> {
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
    history: Option<&Path>,
) -> anyhow::Result<Typed> {
    match editor.readline(prompt) {
        Ok(line) => {
            // A history that can not be kept is no reason to stop.
            if let (Ok(true), Some(path)) = (editor.add_history_entry(&line), history) {
                let _ = editor.append_history(path);
            }
            Ok(Typed::Line(line))
        }
        Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
        Err(ReadlineError::Eof) => Ok(Typed::End),
        Err(error) => Err(error).context("could not read from the terminal"),
    }
}

/// The file of a history, in a directory that is there.
fn history(name: &str) -> Option<PathBuf> {
    let strategy = choose_base_strategy().ok()?;
    let directory = strategy
        .state_dir()
        .unwrap_or_else(|| strategy.data_dir())
        .join("haul");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join(name))
}

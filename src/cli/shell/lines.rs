//! Where the shell's lines come from: an editor at a terminal, or a script.

use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::{BaseStrategy, choose_base_strategy};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::sync::mpsc;

use super::complete::Completion;

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
}

impl Lines {
    /// An editor with history and completion.
    pub(super) fn edited(completion: Completion) -> anyhow::Result<Self> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .history_ignore_dups(true)?
            .build();
        let mut editor = Editor::<Completion, DefaultHistory>::with_config(config)?;
        editor.set_helper(Some(completion));
        let history = history();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        Self::start(move |prompt| edit(&mut editor, &prompt, history.as_deref()))
    }

    /// Standard input, line by line.
    pub(super) fn script() -> anyhow::Result<Self> {
        Self::start(|_| {
            let mut line = String::new();
            match stdin().lock().read_line(&mut line) {
                Ok(0) => Ok(Typed::End),
                Ok(_) => Ok(Typed::Line(line)),
                Err(error) => Err(error).context("could not read standard input"),
            }
        })
    }

    fn start(
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
        Ok(Self { prompts, typed })
    }

    /// The next line.
    pub(super) async fn next(&mut self, prompt: String) -> anyhow::Result<Typed> {
        let gone = "the thread that reads lines has ended";
        self.prompts.send(prompt).context(gone)?;
        self.typed.recv().await.context(gone)?
    }
}

fn edit(
    editor: &mut Editor<Completion, DefaultHistory>,
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

/// The file of the history, in a directory that is there.
fn history() -> Option<PathBuf> {
    let strategy = choose_base_strategy().ok()?;
    let directory = strategy
        .state_dir()
        .unwrap_or_else(|| strategy.data_dir())
        .join("haul");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("history"))
}

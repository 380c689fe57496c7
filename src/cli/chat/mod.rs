//! `haul chat`

mod display;
mod events;
mod file;
mod input;
mod last_chat;

use std::collections::HashSet;
use std::io::{IsTerminal, stderr, stdin};
use std::num::NonZeroU32;

use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::accept::{OfferChoice, only};
use crate::cli::chat::events::{ChatEvent, ChatEvents};
use crate::cli::chat::input::{ChatCommand, HELP};
use crate::cli::exit::Reported;
use crate::cli::history::last;
use crate::cli::join::members_of;
use crate::cli::line_editor::{LineEditor, Printer, TypedLine};
use crate::cli::message_format::Style;
use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::cli::report::error_line;
use crate::cli::say::undelivered;
use crate::cli::who::present;
use crate::client::ClientError;

/// Offers that can be accepted by their numbers; the others, by their names.
const MAX_NUMBERED_OFFERS: usize = 1000;

/// Messages that are shown on entry.
const ON_ENTRY: NonZeroU32 = NonZeroU32::new(20).expect("not 0");

/// Events that may wait until the entry is done; more wait in the connection.
const BEFORE: usize = 10_000;

/// Chat with a user or in a room
///
/// The chat shows the last messages, then new ones as they arrive, from other conversations too.
/// Without a name, a terminal goes on with the user or room of the last chat with this server. If there
/// is none, each line that you type begins with the receiver: `@bob text` or `#ops text`.
/// The name of a room begins with `#`, so it needs quotes in most shells: '#ops'. The chat joins
/// the room, and you stay in it until you `leave` it.
///
/// `/file PATH` offers a file: a local file is uploaded to `/sent` first, and `:PATH` is a file on the
/// server. `/help` lists the other commands, `q` or Ctrl-D ends the chat. If standard input is not a
/// terminal, its lines are sent, and the exit code is 1 if one could not be sent.
#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// A user, or a room such as '#ops'
    with: Option<String>,
}

impl ChatArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let hearing = ChatEvents::start(remote);
        let at_terminal = stdin().is_terminal();
        let mut lines = if at_terminal {
            LineEditor::edited((), None)?
        } else {
            LineEditor::script()?
        };
        let with = match self.with {
            None if at_terminal => last_chat::resume(remote).await,
            with => with,
        };
        let mut talk = ChatSession {
            remote,
            style: Style::new(remote.output, ""),
            me: String::new(),
            with,
            printer: lines.printer(),
            hearing,
            early: Some(Vec::new()),
            shown: HashSet::new(),
            told_up_to: 0,
            began_anew: 0,
            older: false,
            offers: Vec::new(),
            jobs: JoinSet::new(),
            job_lines: mpsc::channel(file::MAX_WAITING_LINES),
            at_terminal,
            failed: false,
        };
        talk.enter().await?;
        if let Some(with) = &talk.with {
            last_chat::save(&remote.server, with).await;
        }
        let outcome = talk.go_on(&mut lines).await;
        talk.finish_jobs().await;
        outcome?;
        if talk.failed && !at_terminal {
            return Err(Reported.into());
        }
        Ok(())
    }
}

/// A chat that goes on.
struct ChatSession<'a> {
    remote: &'a RemoteSession,
    style: Style,
    me: String,
    /// Whom it is with; everybody if absent.
    with: Option<String>,
    printer: Printer,
    hearing: ChatEvents,
    /// Events that came before the entry was done.
    early: Option<Vec<ChatEvent>>,
    /// Messages that were shown on entry, by `seq`; they may arrive again.
    shown: HashSet<u64>,
    /// The last message of the conversation that was shown on entry.
    told_up_to: u64,
    /// How often the server did not know what was heard before.
    began_anew: u64,
    /// There were messages before those shown on entry that nobody had read.
    older: bool,
    /// The offers in the order of their numbers, by which they can be accepted.
    offers: Vec<String>,
    /// Files that are being offered.
    jobs: JoinSet<Result<String, String>>,
    /// How far their uploads are.
    job_lines: (mpsc::Sender<String>, mpsc::Receiver<String>),
    at_terminal: bool,
    failed: bool,
}

impl ChatSession<'_> {
    /// Shows what was before.
    async fn enter(&mut self) -> anyhow::Result<()> {
        let client = self.remote.session.client();
        self.me = self.during(client.whoami()).await??.user;
        self.style = Style::new(self.remote.output, &self.me);
        if let Some(with) = self.with.clone() {
            if with.starts_with('#') {
                let members = self.during(client.join(&with)).await??;
                let text = members_of(&with, &members);
                self.note(&format!("{text}; you stay in the room after this chat"))
                    .await?;
            }
            let said = self.during(last(&client, &with, None, ON_ENTRY)).await??;
            self.show_history(&said.messages).await?;
            self.shown.extend(said.messages.iter().map(|said| said.seq));
            self.told_up_to = said.messages.last().map_or(0, |said| said.seq);
        } else if self.at_terminal {
            let who = self.during(client.who()).await??;
            self.print(present(&who.users)).await?;
            self.note("write `@bob text` or `#ops text`; `/help` lists the commands")
                .await?;
        }
        // Servers without offers exist.
        if let Ok(reply) = self.during(client.offers()).await? {
            for offer in reply.offers {
                self.shown.insert(offer.seq);
                self.show_offer(offer).await?;
            }
        }
        for heard in self.early.take().unwrap_or_default() {
            self.show(heard).await?;
        }
        Ok(())
    }

    async fn go_on(&mut self, lines: &mut LineEditor) -> anyhow::Result<()> {
        lines.ask(self.prompt())?;
        loop {
            tokio::select! {
                typed = lines.typed() => {
                    match typed? {
                        TypedLine::End => return Ok(()),
                        TypedLine::Nothing => self.note("`q` or Ctrl-D ends the chat").await?,
                        TypedLine::Line(line) => {
                            let order = ChatCommand::parse(&line, self.with.as_deref());
                            if order == ChatCommand::Leave {
                                return Ok(());
                            }
                            self.obey(order).await?;
                        }
                    }
                    lines.ask(self.prompt())?;
                }
                heard = self.hearing.next() => {
                    if let Err(error) = self.show(heard).await {
                        self.give_up(&error, lines).await;
                        return Err(error);
                    }
                }
                Some(done) = self.jobs.join_next() => self.report_job(done).await?,
                Some(line) = self.job_lines.1.recv() => self.show_progress(&line).await?,
            }
        }
    }

    fn prompt(&self) -> String {
        safe(&format!("{}> ", self.me)).into_owned()
    }

    /// The terminal is the editor's until the line is typed.
    async fn give_up(&mut self, error: &anyhow::Error, lines: &mut LineEditor) {
        if self.at_terminal {
            let why = error_line("chat", error);
            // Where nobody can read it, the exit code still tells.
            let _ = self.note(&format!("{why}; press Enter to leave")).await;
            let _ = lines.typed().await;
        }
    }

    async fn obey(&mut self, order: ChatCommand) -> anyhow::Result<()> {
        let client = self.remote.session.client();
        match order {
            ChatCommand::Nothing | ChatCommand::Leave => {}
            ChatCommand::Wrong(why) => {
                self.failed = true;
                self.note(&why).await?;
            }
            ChatCommand::Help => self.print(HELP.to_owned()).await?,
            ChatCommand::Say { to, text } => self.say(&to, &text).await?,
            ChatCommand::File { to, path } => {
                let session = self.remote.session.clone();
                let lines = self.job_lines.0.clone();
                self.jobs.spawn(file::offer_file(session, to, path, lines));
            }
            ChatCommand::Offers => {
                if let Some(reply) = self.tried(client.offers()).await? {
                    if reply.offers.is_empty() {
                        self.note("no file is offered to you").await?;
                    }
                    for offer in reply.offers {
                        self.show_offer(offer).await?;
                    }
                }
            }
            ChatCommand::Accept { offer, path } => self.accept(offer, path).await?,
            ChatCommand::Decline { offer } => {
                if let Some(offer) = self.which(offer).await?
                    && self.tried(client.decline(&offer)).await?.is_some()
                {
                    self.note(&format!("declined {offer}")).await?;
                }
            }
            ChatCommand::Who => {
                if let Some(who) = self.tried(client.who()).await? {
                    self.print(present(&who.users)).await?;
                }
            }
            ChatCommand::History { with, limit } => {
                let reading = last(&client, &with, None, limit);
                if let Some(said) = self.tried(reading).await? {
                    self.show_history(&said.messages).await?;
                }
            }
        }
        Ok(())
    }

    async fn say(&mut self, to: &str, text: &str) -> anyhow::Result<()> {
        let client = self.remote.session.client();
        if client.lost().is_some() {
            self.failed = true;
            return self
                .note("not sent: there is no connection at the moment")
                .await;
        }
        match self.during(client.say(to, text)).await? {
            Ok(said) if self.at_terminal => {
                let note = self.during(undelivered(&client, to, said)).await?;
                match note {
                    Some(note) => self.note(&note).await,
                    None => Ok(()),
                }
            }
            Ok(_) => Ok(()),
            Err(ClientError::Lost(_)) => {
                self.failed = true;
                self.note("the connection was lost before the server replied; `/history` shows whether the message was sent")
                    .await
            }
            Err(error) => {
                self.failed = true;
                self.note(&format!("not sent: {error}")).await
            }
        }
    }

    async fn accept(&mut self, offer: Option<String>, path: Option<String>) -> anyhow::Result<()> {
        let Some(offer) = self.which(offer).await? else {
            return Ok(());
        };
        let client = self.remote.session.client();
        if let Some(path) = self.tried(client.accept(&offer, path.as_deref())).await? {
            self.note(&format!("saved as {path} on the server")).await?;
        }
        Ok(())
    }

    /// The offer that is meant, if that is clear.
    async fn which(&mut self, offer: Option<String>) -> anyhow::Result<Option<String>> {
        if let Some(offer) = offer {
            let number = offer.parse::<usize>().ok();
            let number = number.filter(|number| *number <= MAX_NUMBERED_OFFERS);
            let Some(number) = number else {
                return Ok(Some(offer));
            };
            let named = number
                .checked_sub(1)
                .and_then(|index| self.offers.get(index));
            if named.is_none() {
                self.failed = true;
                self.note(&format!(
                    "there is no offer {number}; `/offers` lists the offers"
                ))
                .await?;
            }
            return Ok(named.cloned());
        }
        let client = self.remote.session.client();
        match self.during(only(&client)).await? {
            Ok(OfferChoice::Only(offer)) => Ok(Some(offer.offer)),
            Ok(OfferChoice::Several(offers)) => {
                for offer in offers {
                    self.show_offer(offer).await?;
                }
                Ok(None)
            }
            Err(error) => {
                self.failed = true;
                self.note(&format!("{error:#}")).await?;
                Ok(None)
            }
        }
    }

    /// Says why, if it was refused.
    async fn tried<T>(
        &mut self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> anyhow::Result<Option<T>> {
        match self.during(call).await? {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => {
                self.failed = true;
                self.note(&error.to_string()).await?;
                Ok(None)
            }
        }
    }

    /// Goes on listening meanwhile: the answer may come behind much that is said.
    async fn during<T>(&mut self, call: impl Future<Output = T>) -> anyhow::Result<T> {
        let mut call = std::pin::pin!(call);
        loop {
            let has_room = self.early.as_ref().is_none_or(|early| early.len() < BEFORE);
            tokio::select! {
                done = &mut call => return Ok(done),
                heard = self.hearing.next(), if has_room => match &mut self.early {
                    Some(early) => early.push(heard),
                    None => self.show(heard).await?,
                },
            }
        }
    }

    async fn report_job(
        &mut self,
        done: Result<Result<String, String>, tokio::task::JoinError>,
    ) -> anyhow::Result<()> {
        match done? {
            Ok(done) => self.note(&done).await,
            Err(why) => {
                self.failed = true;
                self.note(&why).await
            }
        }
    }

    /// Files that are on their way when the chat is left still get there.
    async fn finish_jobs(&mut self) {
        if !self.jobs.is_empty() {
            let _ = self
                .note("a file is still being uploaded; Ctrl-C cancels it")
                .await;
        }
        while !self.jobs.is_empty() {
            let _ = tokio::select! {
                Some(done) = self.jobs.join_next() => self.report_job(done).await,
                Some(line) = self.job_lines.1.recv() => self.show_progress(&line).await,
            };
        }
    }

    /// Says how far a file is, where a person reads it.
    async fn show_progress(&self, line: &str) -> anyhow::Result<()> {
        if self.at_terminal && self.remote.output.progress {
            self.note(&safe(line)).await?;
        }
        Ok(())
    }

    /// Prints what the program itself has to say.
    async fn note(&self, text: &str) -> anyhow::Result<()> {
        if self.at_terminal && stderr().is_terminal() {
            return self.print(self.style.aside(text)).await;
        }
        self.remote.output.note(text);
        Ok(())
    }

    async fn print(&self, lines: String) -> anyhow::Result<()> {
        Ok(self.printer.print(lines).await?)
    }
}

//! The classic dialect: a translator in front of an ordinary session.
//!
//! ```text
//! client ─ little-endian JSON, raw bytes ─► conversation ─ frames, in memory ─► session
//! ```
//!
//! The session behind it is the same as that of any framed client, with the same limits, deadlines,
//! rights and lines of the log; here is only what the dialect has of its own: how a frame looks,
//! what a typed line means, and that the bytes of a file stand between frames.

pub(crate) mod client;
pub(crate) mod commands;
pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod in_process_session;
pub(crate) mod pipe;
pub(crate) mod text;
pub(crate) mod tokens;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::protocol::{
    Call, ErrorCode, Hello, Login, Ls, Nothing, Secret, ServerMessage, WireError, encode_ok,
};
use crate::server::classic::client::Client;
use crate::server::classic::commands::Order;
use crate::server::classic::frame::{BadFrame, File, Reply, Request};
use crate::server::classic::in_process_session::{InProcessMessage, InProcessSession};
use crate::server::commands::register::register;
use crate::server::session::peer::Peer;
use crate::server::session::request_log::RequestLog;
use crate::server::state::ServerState;

/// Bytes of a listing; of a larger directory the rest is left out.
const LONGEST_LISTING: usize = 1024 * 1024;

/// A client that speaks the classic dialect, and the session that it has.
pub(crate) struct Conversation<R, W> {
    client: Client<R, W>,
    session: InProcessSession,
    shared: Arc<ServerState>,
    peer: Peer,
    logged_in: bool,
}

/// Why a conversation is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversationEnd {
    #[error("the client closed the connection")]
    Left,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    BadFrame(#[from] BadFrame),
    #[error("a frame was begun and not finished within {0:?}")]
    TimedOut(Duration),
    /// The session refused to go on.
    #[error("{0}")]
    Refused(String),
    /// The session has ended as it should.
    #[error("goodbye, {0}")]
    Goodbye(&'static str),
    /// The session has ended without a word.
    #[error("the session has ended")]
    Gone,
    /// The client was promised bytes that can not be had.
    #[error("a file broke off while it was sent: {0}")]
    CutShort(String),
}

/// What the session answered.
type Answer<T> = Result<T, WireError>;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<R, W> {
    /// A conversation, and what its session reads from and writes to.
    pub(crate) fn new(
        reader: R,
        writer: W,
        shared: Arc<ServerState>,
        peer: Peer,
    ) -> (
        Self,
        impl AsyncRead + Unpin + Send + use<R, W> + 'static,
        impl AsyncWrite + Unpin + Send + use<R, W> + 'static,
    ) {
        let write_timeout = shared.config().limits.write_timeout;
        let (session, its_reader, its_writer) = InProcessSession::new();
        let conversation = Self {
            client: Client::new(reader, writer, write_timeout),
            session,
            shared,
            peer,
            logged_in: false,
        };
        (conversation, its_reader, its_writer)
    }

    /// Takes order after order until either side ends it.
    pub(crate) async fn run(mut self) {
        let over = loop {
            let request = match self.request().await {
                Ok(request) => request,
                Err(over) => break over,
            };
            // Boxed: only while it works does a conversation need room for that.
            if let Err(over) = Box::pin(self.take(request)).await {
                break over;
            }
        };
        self.note(&over);
        match over {
            // What was promised is not whole: no sound end, either.
            ConversationEnd::CutShort(_) | ConversationEnd::Io(_) => {}
            ConversationEnd::Left | ConversationEnd::Gone => self.client.close().await,
            ConversationEnd::Goodbye(_) => {
                let _ = self.say(over.to_string()).await;
                self.client.close().await;
            }
            ConversationEnd::BadFrame(_)
            | ConversationEnd::TimedOut(_)
            | ConversationEnd::Refused(_) => {
                if self.say(over.to_string()).await.is_ok() {
                    self.client.close().await;
                    self.client.linger().await;
                }
            }
        }
    }

    /// Writes to the log what the session can not know.
    fn note(&self, over: &ConversationEnd) {
        match over {
            ConversationEnd::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                if let Some(left_out) = self.shared.refusals.unread.turn(Instant::now()) {
                    info!(
                        name: "peer_stopped_reading",
                        %error,
                        left_out,
                        "the peer stopped reading"
                    );
                }
            }
            ConversationEnd::BadFrame(_)
            | ConversationEnd::TimedOut(_)
            | ConversationEnd::CutShort(_)
                if self.logged_in =>
            {
                info!(name: "classic_hung_up", reason = %over, "hung up on a classic client");
            }
            ConversationEnd::BadFrame(_)
            | ConversationEnd::TimedOut(_)
            | ConversationEnd::CutShort(_) => {
                if let Some(left_out) = self.shared.refusals.visitor.turn(Instant::now()) {
                    info!(
                        name: "classic_hung_up",
                        reason = %over,
                        left_out,
                        "hung up on a classic client"
                    );
                }
            }
            _ => {}
        }
    }

    async fn take(&mut self, request: Request) -> Result<(), ConversationEnd> {
        let order = Order::parse(&request);
        if let Ok(Order::Put(upload)) = order {
            let text = self.put(upload, request.size).await?;
            return self.say(text).await;
        }
        // The bytes come, whatever is said about them.
        self.discard(request.size).await?;
        let text = match order {
            Ok(Order::Get(download)) => return self.get(download).await,
            Ok(order) => self.obey(order).await?,
            Err(misunderstood) => {
                self.count().await?;
                text::shown(&misunderstood.to_string())
            }
        };
        self.say(text).await
    }

    /// The longest frame that is taken now.
    fn longest(&self) -> usize {
        if self.logged_in {
            frame::LONGEST
        } else {
            frame::LONGEST_BEFORE_LOGIN
        }
    }

    /// Waits for the next request.
    async fn request(&mut self) -> Result<Request, ConversationEnd> {
        let patience = {
            let limits = &self.shared.config().limits;
            if self.logged_in {
                limits.frame_timeout
            } else {
                limits.frame_timeout_before_login
            }
        };
        // Runs from the first byte of a frame to its last; no byte resets it.
        let mut deadline = None;
        loop {
            if let Some(json) = self.client.take_frame(self.longest())? {
                return Ok(Request::parse(&json)?);
            }
            if self.client.has_ended() {
                return Err(ConversationEnd::Left);
            }
            if self.client.is_within_frame() {
                deadline.get_or_insert_with(|| Instant::now() + patience);
            }
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                // Late answers, and why it ends.
                said = self.session.next() => drop(said?),
                () = late => return Err(ConversationEnd::TimedOut(patience)),
                read = self.client.read_frame() => read?,
            }
        }
    }

    /// Does what one value or line answers.
    async fn obey(&mut self, order: Order) -> Result<String, ConversationEnd> {
        Ok(match order {
            Order::Login(login) => self.log_in(login).await?,
            Order::Register { user, password } => self.register(user, password).await?,
            Order::Pwd(pwd) => told(self.ask(&pwd).await?, |reply| text::shown(&reply.cwd)),
            Order::Cd(cd) => told(self.ask(&cd).await?, |reply| text::shown(&reply.cwd)),
            Order::Ls(ls) => self.list(ls).await?,
            Order::Mkdir(mkdir) => told(self.ask(&mkdir).await?, |reply| {
                format!("made {}", text::shown(&reply.path))
            }),
            Order::Rm(rm) => told(self.ask(&rm).await?, text::removed),
            Order::Mv(mv) => told(self.ask(&mv).await?, |reply| {
                format!("it is {} now", text::shown(&reply.path))
            }),
            Order::Hash(hash) => told(self.ask(&hash).await?, |reply| text::hex(&reply.digest)),
            Order::Df(df) => told(self.ask(&df).await?, text::usage),
            Order::Who => {
                let answer = self.ask_json(json!({"cmd": "who"})).await?;
                told(answer, |reply| text::users(&reply))
            }
            Order::Say { to, text } => {
                let say = json!({"cmd": "say", "to": to, "text": text});
                told(self.ask_json(say).await?, |reply| text::said(&reply))
            }
            Order::Help => {
                self.count().await?;
                commands::help()
            }
            Order::Quit(quit) => told(self.ask(&quit).await?, |_| "goodbye".into()),
            Order::Get(_) | Order::Put(_) => "files are moved by their own ways".into(),
        })
    }

    async fn log_in(&mut self, login: Login) -> Result<String, ConversationEnd> {
        let answer = self.ask(&login).await?;
        self.logged_in |= answer.is_ok();
        Ok(told(answer, |reply| {
            format!("logged in as {}; you are in {}", reply.user, reply.home)
        }))
    }

    /// Makes an account, unless the session ends before.
    async fn register(
        &mut self,
        user: String,
        password: Secret,
    ) -> Result<String, ConversationEnd> {
        self.count().await?;
        let lines = self.shared.request_lines.of_strangers();
        let job = RequestLog::new(&self.shared.metrics, lines, 0, "register", None);
        let job = job.with_user(Some(&user));
        let work = async {
            self.shared.audit_room().await;
            let registering = register(&user, &password, &self.shared, &self.peer);
            registering.await.map(|()| encode_ok(0, &Nothing {}))
        };
        let outcome = select! {
            biased;
            over = ended(&mut self.session) => return Err(over),
            outcome = job.guard(work) => outcome,
        };
        let answer = match ServerMessage::parse(&job.close(outcome)) {
            Ok(ServerMessage::Reply(_, answer)) => answer,
            _ => Err(unreadable()),
        };
        Ok(told(answer, |_| {
            format!("the account {user} is made; now: login {user} PASSWORD")
        }))
    }

    /// Lists a directory, page after page.
    async fn list(&mut self, mut ls: Ls) -> Result<String, ConversationEnd> {
        let mut listing = String::new();
        loop {
            let page = match self.ask(&ls).await? {
                Ok(page) => page,
                Err(error) => return Ok(text::failure(&error)),
            };
            for entry in &page.entries {
                text::add_entry(&mut listing, entry);
            }
            if page.cursor.is_none() {
                return Ok(text::listed(listing));
            }
            if listing.len() > LONGEST_LISTING {
                listing.push_str("and more, which this listing has no room for");
                return Ok(listing);
            }
            ls.cursor = page.cursor;
        }
    }

    /// Lets the session know that something was asked: it counts, and is a sign of life.
    async fn count(&mut self) -> Result<(), ConversationEnd> {
        let _ = self.ask(&Hello {}).await?;
        Ok(())
    }

    /// Asks the session, and waits for its answer.
    async fn ask<C: Call>(&mut self, request: &C) -> Result<Answer<C::Reply>, ConversationEnd> {
        let id = self.session.ask(request).await?;
        Ok(self.answer(id).await?.and_then(|json| read(&json)))
    }

    async fn ask_json(&mut self, request: Value) -> Result<Answer<Value>, ConversationEnd> {
        let id = self.session.ask_json(request).await?;
        Ok(self.answer(id).await?.and_then(|json| read(&json)))
    }

    /// Waits for the final reply to a request.
    async fn answer(&mut self, id: u32) -> Result<Answer<Box<RawValue>>, ConversationEnd> {
        loop {
            if let InProcessMessage::Reply(answer) = self.hear(id).await? {
                return Ok(answer);
            }
        }
    }

    /// Waits for what the session says of a request. If the client stops waiting, the session is
    /// told.
    async fn hear(&mut self, id: u32) -> Result<InProcessMessage, ConversationEnd> {
        let longest = self.longest();
        loop {
            select! {
                biased;
                said = self.session.next() => match said? {
                    (of, said) if of == id => return Ok(said),
                    _ => {}
                },
                closed = self.client.closes(longest) => {
                    closed?;
                    self.session.close_input();
                }
            }
        }
    }

    /// Answers the client.
    async fn say(&mut self, res: String) -> Result<(), ConversationEnd> {
        let reply = Reply { res, file: None };
        Ok(self.client.send(reply.encode()).await?)
    }

    /// Announces a file to the client.
    async fn announce(&mut self, file: File) -> Result<(), ConversationEnd> {
        let res = format!("{}, {} bytes", text::shown(&file.filename), file.size);
        let reply = Reply {
            res,
            file: Some(file),
        };
        Ok(self.client.send(reply.encode()).await?)
    }
}

/// Resolves once the session has ended.
async fn ended(session: &mut InProcessSession) -> ConversationEnd {
    loop {
        if let Err(over) = session.next().await {
            return over;
        }
    }
}

/// What a person is told of an answer.
fn told<T>(answer: Answer<T>, tell: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(reply) => tell(reply),
        Err(error) => text::failure(&error),
    }
}

fn read<T: DeserializeOwned>(json: &RawValue) -> Answer<T> {
    serde_json::from_str(json.get()).map_err(|_| unreadable())
}

fn unreadable() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "the server's own answer can not be read",
    )
}

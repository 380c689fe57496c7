//! The classic dialect: a translator in front of an ordinary session.
//!
//! ```text
//! client ─ little-endian JSON, raw bytes ─► conversation ─ frames, in memory ─► session
//! ```
//!
//! The session is the same as that of a framed client, with the same limits, deadlines, rights and log
//! lines. This module holds only what is specific to the dialect: the frames, the typed commands, and
//! raw file bytes between frames. Translator and session run in one task.

pub(crate) mod client;
pub(crate) mod close;
pub(crate) mod commands;
mod execute;
pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod in_process_session;
pub(crate) mod pipe;
pub(crate) mod text;
pub(crate) mod tokens;

use std::future::pending;
use std::io;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::protocol::{Call, ErrorCode, Hello, WireError};
use crate::server::classic::client::ClassicClient;
use crate::server::classic::close::ClassicClose;
use crate::server::classic::commands::ClassicCommand;
use crate::server::classic::frame::{ClassicFileInfo, ClassicReply, ClassicRequest};
use crate::server::classic::in_process_session::{InProcessMessage, InProcessSession};
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;

/// A client of the classic dialect and its session.
pub(crate) struct ClassicConversation<R, W> {
    client: ClassicClient<R, W>,
    session: InProcessSession,
    shared: Arc<ServerState>,
    peer: Peer,
    logged_in: bool,
}

/// The reply of the session.
type SessionReply<T> = Result<T, WireError>;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> ClassicConversation<R, W> {
    /// Creates a conversation, and the reader and writer of its session.
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
            client: ClassicClient::new(reader, writer, write_timeout),
            session,
            shared,
            peer,
            logged_in: false,
        };
        (conversation, its_reader, its_writer)
    }

    /// Handles requests until either side ends the conversation.
    pub(crate) async fn run(mut self) {
        let reason = loop {
            let request = match self.read_request().await {
                Ok(request) => request,
                Err(reason) => break reason,
            };
            // Boxed, so that the future of an idle conversation does not include the request.
            if let Err(reason) = Box::pin(self.handle(request)).await {
                break reason;
            }
        };
        self.log_end(&reason);
        match reason {
            // An announced file is incomplete, so the connection must not be closed cleanly.
            ClassicClose::CutShort(_) | ClassicClose::Io(_) => {}
            ClassicClose::Disconnected | ClassicClose::SessionGone => self.client.close().await,
            ClassicClose::Goodbye(_) => {
                let _ = self.send_reply(reason.to_string()).await;
                self.client.close().await;
            }
            ClassicClose::BadFrame(_) | ClassicClose::TimedOut(_) | ClassicClose::Refused(_) => {
                if self.send_reply(reason.to_string()).await.is_ok() {
                    self.client.close().await;
                    self.client.linger().await;
                }
            }
        }
    }

    /// Logs an end that the session cannot know.
    fn log_end(&self, reason: &ClassicClose) {
        match reason {
            ClassicClose::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                if let Some(left_out) = self.shared.refusal_logs.unread_output.allow(Instant::now())
                {
                    info!(
                        name: "peer_stopped_reading",
                        %error,
                        left_out,
                        "closed: the peer does not read"
                    );
                }
            }
            ClassicClose::BadFrame(_) | ClassicClose::TimedOut(_) | ClassicClose::CutShort(_)
                if self.logged_in =>
            {
                info!(name: "classic_hung_up", %reason, "closed the connection of a classic client");
            }
            ClassicClose::BadFrame(_) | ClassicClose::TimedOut(_) | ClassicClose::CutShort(_) => {
                if let Some(left_out) = self
                    .shared
                    .refusal_logs
                    .unauthenticated
                    .allow(Instant::now())
                {
                    info!(
                        name: "classic_hung_up",
                        %reason,
                        left_out,
                        "closed the connection of a classic client"
                    );
                }
            }
            _ => {}
        }
    }

    async fn handle(&mut self, request: ClassicRequest) -> Result<(), ClassicClose> {
        let command = ClassicCommand::parse(&request);
        if let Ok(ClassicCommand::Put(upload)) = command {
            let text = self.put(upload, request.size).await?;
            return self.send_reply(text).await;
        }
        // The client sends the bytes of the request in any case.
        self.discard(request.size).await?;
        let text = match command {
            Ok(ClassicCommand::Get(download)) => return self.get(download).await,
            Ok(command) => self.execute(command).await?,
            Err(error) => {
                self.count_request().await?;
                text::escape_for_terminal(&error.to_string())
            }
        };
        self.send_reply(text).await
    }

    /// The longest frame that is accepted now.
    fn max_frame_bytes(&self) -> usize {
        if self.logged_in {
            frame::MAX_FRAME_BYTES
        } else {
            frame::MAX_FRAME_BYTES_BEFORE_LOGIN
        }
    }

    /// Waits for the next request.
    async fn read_request(&mut self) -> Result<ClassicRequest, ClassicClose> {
        let timeout = {
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
            if let Some(json) = self.client.take_frame(self.max_frame_bytes())? {
                return Ok(ClassicRequest::parse(&json)?);
            }
            if self.client.has_ended() {
                return Err(ClassicClose::Disconnected);
            }
            if self.client.is_within_frame() {
                deadline.get_or_insert_with(|| Instant::now() + timeout);
            }
            let timed_out = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                // A late reply, or the end of the session.
                message = self.session.next_message() => drop(message?),
                () = timed_out => return Err(ClassicClose::TimedOut(timeout)),
                read = self.client.read_frame() => read?,
            }
        }
    }

    /// Sends a `hello` to the session, so that the request counts for its limits and its idle timer.
    async fn count_request(&mut self) -> Result<(), ClassicClose> {
        let _ = self.call(&Hello {}).await?;
        Ok(())
    }

    /// Sends a request to the session and waits for its reply.
    async fn call<C: Call>(&mut self, request: &C) -> Result<SessionReply<C::Reply>, ClassicClose> {
        let id = self.session.send_request(request).await?;
        Ok(self
            .wait_for_reply(id)
            .await?
            .and_then(|json| parse_reply(&json)))
    }

    async fn call_json(&mut self, request: Value) -> Result<SessionReply<Value>, ClassicClose> {
        let id = self.session.send_json_request(request).await?;
        Ok(self
            .wait_for_reply(id)
            .await?
            .and_then(|json| parse_reply(&json)))
    }

    /// Waits for the final reply to a request.
    async fn wait_for_reply(
        &mut self,
        id: u32,
    ) -> Result<SessionReply<Box<RawValue>>, ClassicClose> {
        loop {
            if let InProcessMessage::Reply(answer) = self.next_message(id).await? {
                return Ok(answer);
            }
        }
    }

    /// Waits for the next message of a request. If the client closes the connection, closes the input of
    /// the session.
    async fn next_message(&mut self, id: u32) -> Result<InProcessMessage, ClassicClose> {
        let longest = self.max_frame_bytes();
        loop {
            select! {
                biased;
                message = self.session.next_message() => match message? {
                    (reply_id, message) if reply_id == id => return Ok(message),
                    _ => {}
                },
                closed = self.client.wait_for_close(longest) => {
                    closed?;
                    self.session.close_input();
                }
            }
        }
    }

    /// Sends a reply to the client.
    async fn send_reply(&mut self, res: String) -> Result<(), ClassicClose> {
        let reply = ClassicReply { res, file: None };
        Ok(self.client.send(reply.encode()).await?)
    }

    /// Announces a file to the client.
    async fn send_file_info(&mut self, file: ClassicFileInfo) -> Result<(), ClassicClose> {
        let res = format!(
            "{}, {} bytes",
            text::escape_for_terminal(&file.filename),
            file.size
        );
        let reply = ClassicReply {
            res,
            file: Some(file),
        };
        Ok(self.client.send(reply.encode()).await?)
    }
}

fn parse_reply<T: DeserializeOwned>(json: &RawValue) -> SessionReply<T> {
    serde_json::from_str(json.get()).map_err(|_| unreadable())
}

fn unreadable() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "the reply of the session cannot be parsed",
    )
}

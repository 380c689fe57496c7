//! The client's side of the ordinary session behind a classic connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use crate::connection::Receiver;
use crate::protocol::{Call, Event, Frame, FrameCodec, ServerMessage, WireError, encode_request};
use crate::server::classic::close::ClassicClose;
use crate::server::classic::pipe;
use crate::server::classic::pipe::ChunkStream;
use crate::server::session::close_reason::reason_text;

/// The read timeout of the translator. The session has its own write timeout.
const NO_READ_TIMEOUT: Duration = Duration::from_hours(24);

/// A framed session within this process.
#[derive(Debug)]
pub(crate) struct InProcessSession {
    receiver: Receiver<StreamReader<ChunkStream, Bytes>>,
    /// `None` once the input of the session is closed.
    sender: Option<mpsc::Sender<Bytes>>,
    /// The id of the last request.
    id: u32,
    /// The reason for the end that the session has sent, if it has.
    ending: Option<ClassicClose>,
}

/// A message of the session.
#[derive(Debug)]
pub(crate) enum InProcessMessage {
    Begin,
    Data(Bytes),
    Reply(Result<Box<RawValue>, WireError>),
}

impl InProcessSession {
    /// The client's side of a session, and the reader and writer of the session.
    pub(crate) fn new() -> (
        Self,
        impl AsyncRead + Unpin + Send + 'static,
        impl AsyncWrite + Unpin + Send + 'static,
    ) {
        let (sender, reader) = pipe::chunk_pipe();
        let (writer, replies) = pipe::byte_pipe();
        let session = Self {
            receiver: Receiver::new(replies, FrameCodec::new(), NO_READ_TIMEOUT),
            sender: Some(sender),
            id: 0,
            ending: None,
        };
        (session, reader, writer)
    }

    /// Sends a request; returns its id.
    pub(crate) async fn send_request<C: Call>(&mut self, request: &C) -> Result<u32, ClassicClose> {
        self.id = self.id.wrapping_add(1);
        let json = encode_request(self.id, request);
        self.send(Frame::Control(json.into())).await?;
        Ok(self.id)
    }

    /// Sends a request that has no type in the protocol; returns its id.
    pub(crate) async fn send_json_request(
        &mut self,
        mut request: serde_json::Value,
    ) -> Result<u32, ClassicClose> {
        self.id = self.id.wrapping_add(1);
        request["id"] = self.id.into();
        let json = request.to_string();
        self.send(Frame::Control(json.into())).await?;
        Ok(self.id)
    }

    /// Sends a request that belongs to the one with this id.
    pub(crate) async fn resend_request<C: Call>(
        &mut self,
        id: u32,
        request: &C,
    ) -> Result<(), ClassicClose> {
        let json = encode_request(id, request);
        self.send(Frame::Control(json.into())).await
    }

    /// Sends file bytes on a stream. Waits while the session accepts no more.
    pub(crate) async fn send_data(
        &mut self,
        stream: u32,
        chunk: Bytes,
    ) -> Result<(), ClassicClose> {
        self.send(Frame::Data { stream, chunk }).await
    }

    /// Closes the input of the session. The caller must not wait for a reply.
    pub(crate) fn close_input(&mut self) {
        self.sender = None;
    }

    /// The next message of the session, and its request. Cancel-safe.
    pub(crate) async fn next_message(&mut self) -> Result<(u32, InProcessMessage), ClassicClose> {
        loop {
            let json = match self.receiver.next().await {
                Ok(Some(Frame::Data { stream, chunk })) => {
                    return Ok((stream, InProcessMessage::Data(chunk)));
                }
                Ok(Some(Frame::Control(json))) => json,
                Ok(None) | Err(_) => {
                    return Err(self.ending.take().unwrap_or(ClassicClose::SessionGone));
                }
            };
            match ServerMessage::parse(&json) {
                Ok(ServerMessage::Reply(id, answer)) => {
                    return Ok((id, InProcessMessage::Reply(answer)));
                }
                Ok(ServerMessage::Begin(id, _)) => return Ok((id, InProcessMessage::Begin)),
                Ok(ServerMessage::Refusal(error)) => {
                    self.ending = Some(ClassicClose::Refused(error.message));
                }
                Ok(ServerMessage::Event(Event::Goodbye { reason })) => {
                    self.ending = Some(ClassicClose::Goodbye(reason_text(reason)));
                }
                // There are no events in this dialect.
                Ok(ServerMessage::Event(_)) | Err(_) => {}
            }
        }
    }

    /// Discards all messages until the session has ended, and returns the reason.
    async fn end(&mut self) -> ClassicClose {
        loop {
            if let Err(reason) = self.next_message().await {
                return reason;
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), ClassicClose> {
        let mut head = BytesMut::new();
        frame.put_head(&mut head);
        for piece in [head.freeze(), frame.body().clone()] {
            let sent = match &self.sender {
                Some(sender) => sender.send(piece).await.is_ok(),
                None => false,
            };
            if !sent {
                return Err(self.end().await);
            }
        }
        Ok(())
    }
}

//! The ordinary session behind a classic connection, seen as its one client sees it.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::Over;
use crate::connection::Receiver;
use crate::protocol::{Call, Event, Frame, FrameCodec, ServerMessage, WireError, encode_request};
use crate::server::session::reason_text;

/// The session has deadlines of its own for what it writes.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A framed session within this process.
#[derive(Debug)]
pub(super) struct Inside {
    receiver: Receiver<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    /// The id of the last request.
    id: u32,
    /// Why it is about to end, if it has said so.
    ending: Option<Over>,
}

/// What the session says.
#[derive(Debug)]
pub(super) enum Said {
    Begin,
    Data(Bytes),
    Reply(Result<Box<RawValue>, WireError>),
}

impl Inside {
    pub(super) fn new(stream: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            receiver: Receiver::new(reader, FrameCodec::new(), NEVER),
            writer,
            id: 0,
            ending: None,
        }
    }

    /// Sends a request; its id.
    pub(super) async fn ask<C: Call>(&mut self, request: &C) -> Result<u32, Over> {
        self.id = self.id.wrapping_add(1);
        let json = encode_request(self.id, request);
        self.send(Frame::Control(json.into())).await?;
        Ok(self.id)
    }

    /// Sends a request that is no type of the protocol; its id.
    pub(super) async fn ask_json(&mut self, mut request: serde_json::Value) -> Result<u32, Over> {
        self.id = self.id.wrapping_add(1);
        request["id"] = self.id.into();
        let json = request.to_string();
        self.send(Frame::Control(json.into())).await?;
        Ok(self.id)
    }

    /// Sends a request that belongs to the one with this id.
    pub(super) async fn ask_again<C: Call>(&mut self, id: u32, request: &C) -> Result<(), Over> {
        let json = encode_request(id, request);
        self.send(Frame::Control(json.into())).await
    }

    /// Sends file bytes on a stream. Waits while the session takes no more.
    pub(super) async fn data(&mut self, stream: u32, chunk: Bytes) -> Result<(), Over> {
        self.send(Frame::Data { stream, chunk }).await
    }

    /// Nothing more will be asked, and nobody may be waiting for an answer.
    pub(super) async fn close_input(&mut self) {
        let _ = self.writer.shutdown().await;
    }

    /// The next that the session says, and of which request. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<(u32, Said), Over> {
        loop {
            let json = match self.receiver.next().await {
                Ok(Some(Frame::Data { stream, chunk })) => return Ok((stream, Said::Data(chunk))),
                Ok(Some(Frame::Control(json))) => json,
                Ok(None) | Err(_) => return Err(self.ending.take().unwrap_or(Over::Gone)),
            };
            match ServerMessage::parse(&json) {
                Ok(ServerMessage::Reply(id, answer)) => return Ok((id, Said::Reply(answer))),
                Ok(ServerMessage::Begin(id, _)) => return Ok((id, Said::Begin)),
                Ok(ServerMessage::Refusal(error)) => {
                    self.ending = Some(Over::Refused(error.message));
                }
                Ok(ServerMessage::Event(Event::Goodbye { reason })) => {
                    self.ending = Some(Over::Goodbye(reason_text(reason)));
                }
                // There are no events in this dialect.
                Ok(ServerMessage::Event(_)) | Err(_) => {}
            }
        }
    }

    /// Says nothing more of the requests until the session has ended, and why it did.
    async fn end(&mut self) -> Over {
        loop {
            if let Err(over) = self.next().await {
                return over;
            }
        }
    }

    async fn send(&mut self, frame: Frame) -> Result<(), Over> {
        let mut head = BytesMut::new();
        frame.put_head(&mut head);
        let mut bytes = head.freeze().chain(frame.body().clone());
        match self.writer.write_all_buf(&mut bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.end().await),
        }
    }
}

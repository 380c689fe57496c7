//! The reading task of a connection: it passes every frame to the request or the events that it
//! belongs to.

use tokio::io::AsyncRead;
use tokio::task::JoinHandle;

use crate::client::Lost;
use crate::client::connection::table::{RequestTable, TransferPart, unexpected};
use crate::client::tls::why_broken;
use crate::connection::{ReceiveError, Receiver};
use crate::io_error::describe_io_error;
use crate::protocol::{Event, Frame, FrameError, GoodbyeReason, ServerMessage};

/// Reads frames until the connection is lost, and returns the reason.
pub(super) async fn read_until_lost<R: AsyncRead + Unpin>(
    mut receiver: Receiver<R>,
    mut writer: JoinHandle<std::io::Result<()>>,
    table: &RequestTable,
) -> Lost {
    let mut goodbye = None;
    let lost = loop {
        let frame = tokio::select! {
            biased;
            frame = receiver.next() => frame,
            end = &mut writer => break why_unwritable(end),
        };
        table.count_frame();
        match frame {
            Ok(Some(Frame::Data { stream, chunk })) => {
                if let Err(lost) = deliver(table, stream, TransferPart::Chunk(chunk)).await {
                    break lost;
                }
            }
            Ok(Some(Frame::Control(json))) => match ServerMessage::parse(&json) {
                Ok(message) => {
                    if let Err(lost) = dispatch(table, message, &mut goodbye).await {
                        break lost;
                    }
                }
                Err(error) => break Lost::NotHaul(error.to_string()),
            },
            Ok(None) => break Lost::Closed,
            Err(ReceiveError::Frame(FrameError::Io(error))) => {
                break why_broken(&error);
            }
            Err(ReceiveError::Frame(FrameError::Truncated)) => {
                break Lost::Broken(FrameError::Truncated.to_string());
            }
            Err(ReceiveError::Frame(error)) => break Lost::NotHaul(error.to_string()),
            Err(error @ ReceiveError::TimedOut(_)) => break Lost::Broken(error.to_string()),
        }
    };
    goodbye.map_or(lost, Lost::Goodbye)
}

/// Passes one message to its receiver. An error ends the connection.
///
/// A reply without a request is such an error: a damaged byte may have changed its id, and the
/// request that it answers would wait forever.
async fn dispatch(
    table: &RequestTable,
    message: ServerMessage,
    goodbye: &mut Option<GoodbyeReason>,
) -> Result<(), Lost> {
    match message {
        ServerMessage::Reply(id, reply) => match (table.remove(id), reply) {
            (Some(waiting), reply) => waiting.reply.send(reply),
            (None, Ok(_)) => return Err(unexpected("a reply", id)),
            (None, Err(error)) => {
                return Err(unexpected(&format!("an error ({error})"), id));
            }
        },
        ServerMessage::Begin(id, begin) => deliver(table, id, TransferPart::Begin(begin)).await?,
        ServerMessage::Event(Event::Goodbye { reason }) => *goodbye = Some(reason),
        // Newer servers may have more events.
        ServerMessage::Event(Event::Unknown) => {}
        ServerMessage::Event(event) => {
            if let Some(sender) = table.event_sender()
                && !table.deliver(sender.send(event)).await
            {
                return Err(Lost::EventsUnread);
            }
        }
        ServerMessage::Refusal(error) => return Err(Lost::Refused(error)),
    }
    Ok(())
}

/// Waits for capacity in the queue of a transfer. A part whose receiver was dropped is discarded.
async fn deliver(table: &RequestTable, id: u32, part: TransferPart) -> Result<(), Lost> {
    if let Some((parts, part)) = table.route(id, part)? {
        let _ = table.deliver(parts.send(part)).await;
    }
    Ok(())
}

fn why_unwritable(end: Result<std::io::Result<()>, tokio::task::JoinError>) -> Lost {
    match end {
        Ok(Ok(())) => Lost::Closed,
        Ok(Err(error)) => Lost::Broken(describe_io_error(&error)),
        Err(error) => Lost::Broken(error.to_string()),
    }
}

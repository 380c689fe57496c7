//! One session, from the first byte of its connection to the last.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, field, info, info_span};

use super::dispatch::Dispatcher;
use super::sniff::{Opening, sniff};
use super::transfers::StrayData;
use super::{Peer, Shared, Shutdown};
use crate::connection::{Closed, Outbox, ReceiveError, Receiver, write_frames};
use crate::protocol::{
    ErrorCode, Event, FrameCodec, FrameError, GoodbyeReason, WireError, encode_event,
    encode_refusal,
};

/// How long a peer that is hung up on may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one connection until either side ends it.
pub(super) async fn serve<R, W>(
    shared: &Arc<Shared>,
    reader: R,
    writer: W,
    peer: Peer,
    shutdown: Shutdown,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let id: Arc<str> = session_id().into();
    let span = info_span!("session", session = %id, peer = %peer, user = field::Empty);
    async {
        let login_deadline = Instant::now() + shared.limits.login_timeout;
        let Some(reader) = expect_frames(reader, login_deadline).await else {
            return;
        };
        let limits = &shared.limits;
        let (outbox, queue) = Outbox::new();
        let writing = write_frames(writer, queue, limits.write_timeout);
        let mut writing = tokio::spawn(writing.in_current_span());
        let first_timeout = limits.frame_timeout_before_login;
        let session = Session {
            shared: shared.clone(),
            receiver: Receiver::new(reader, FrameCodec::before_login(), first_timeout),
            outbox,
            peer,
            id,
            shutdown: shutdown.clone(),
            login_deadline,
            gone: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        session.run().await;
        tokio::select! {
            written = &mut writing => {
                if let Ok(Err(error)) = written {
                    info!(%error, "the peer stopped reading");
                }
            }
            () = shutdown.stop.cancelled() => writing.abort(),
        }
    }
    .instrument(span)
    .await;
}

/// The stream, if the peer begins to speak frames.
async fn expect_frames<R: AsyncRead + Unpin>(
    reader: R,
    deadline: Instant,
) -> Option<super::sniff::Sniffed<R>> {
    match timeout_at(deadline, sniff(reader)).await {
        Ok(Ok(Some((Opening::Framed, reader)))) => return Some(reader),
        Ok(Ok(Some((opening, _)))) => info!(?opening, "closed: that is not spoken here"),
        Ok(Ok(None)) => debug!("closed by the peer before it said anything"),
        Ok(Err(error)) => info!(%error, "closed: the connection failed"),
        Err(_) => info!("closed: the peer said nothing"),
    }
    None
}

/// What a session has from its first frame to its last.
pub(super) struct Session<R> {
    pub(super) shared: Arc<Shared>,
    pub(super) receiver: Receiver<R>,
    pub(super) outbox: Outbox,
    pub(super) peer: Peer,
    pub(super) id: Arc<str>,
    pub(super) shutdown: Shutdown,
    pub(super) login_deadline: Instant,
    /// Cancelled once the session has ended.
    pub(super) gone: CancellationToken,
    /// The requests that run beside the reading of later ones.
    pub(super) tasks: TaskTracker,
}

impl<R: AsyncRead + Unpin + Send> Session<R> {
    async fn run(mut self) {
        let started = Instant::now();
        let end = match self.admit().await {
            Ok(member) => Dispatcher::new(&mut self, member).run().await,
            Err(end) => end,
        };
        self.gone.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(reason = %end, ms, "session ended");
        self.hang_up(&end).await;
    }

    /// Tells the peer that the server ends the session.
    pub(super) async fn say_goodbye(&self, reason: GoodbyeReason) -> Result<(), Closed> {
        self.outbox
            .send(encode_event(&Event::Goodbye { reason }))
            .await
    }

    /// Says why, and reads on for a moment: closing on unread bytes would take the reason back.
    async fn hang_up(mut self, end: &End) {
        let Some(refusal) = end.refusal() else {
            return;
        };
        let farewell = async {
            let sent = self.outbox.send(encode_refusal(&refusal)).await;
            drop(self.outbox);
            if sent.is_ok() {
                self.receiver.discard_rest().await;
            }
        };
        let _ = timeout(LINGER, farewell).await;
    }
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the peer closed the connection")]
    Disconnected,
    #[error("the client quit")]
    Quit,
    #[error("goodbye, {}", reason_text(*.0))]
    Goodbye(GoodbyeReason),
    #[error("{0}")]
    BadFrame(FrameError),
    #[error("{0}")]
    Stray(StrayData),
    #[error("{0}")]
    TimedOut(String),
}

fn reason_text(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::ShuttingDown => "the server is stopping",
        GoodbyeReason::AccountClosed => "the account is closed",
        GoodbyeReason::Unknown => "for no known reason",
    }
}

impl End {
    /// What the peer is told before it is hung up on; nothing if it went by itself or knows.
    fn refusal(&self) -> Option<WireError> {
        let code = match self {
            Self::BadFrame(FrameError::Io(_) | FrameError::Truncated)
            | Self::Disconnected
            | Self::Quit
            | Self::Goodbye(_) => return None,
            Self::BadFrame(_) | Self::Stray(_) => ErrorCode::BadFrame,
            Self::TimedOut(_) => ErrorCode::TimedOut,
        };
        Some(WireError::new(code, self.to_string()))
    }
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Disconnected
    }
}

impl From<StrayData> for End {
    fn from(stray: StrayData) -> Self {
        Self::Stray(stray)
    }
}

impl From<ReceiveError> for End {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Frame(error) => Self::BadFrame(error),
            ReceiveError::TimedOut(_) => Self::TimedOut(error.to_string()),
        }
    }
}

fn session_id() -> String {
    let mut bytes = [0; 8];
    // Only people who read logs compare it; a constant is better than no session.
    let _ = getrandom::fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}

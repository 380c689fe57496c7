//! One connection, from its first byte to its last.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error_span, field, info};

use super::dispatch::Dispatcher;
use super::limits::Seat;
use super::session::{End, Session};
use super::sniff::{Opening, Sniffed, sniff};
use super::{Peer, Shared, Shutdown};
use crate::connection::{Outbox, Receiver, write_frames};
use crate::protocol::{FrameCodec, GoodbyeReason, encode_refusal};

/// How long a peer that is hung up on may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The same for one whose place is waited for.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Serves one connection until either side ends it.
pub(super) async fn serve<R, W>(
    shared: &Arc<Shared>,
    reader: R,
    writer: W,
    peer: Peer,
    seat: Box<Seat>,
    shutdown: Shutdown,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let id: Arc<str> = session_id().into();
    // Of the highest level, so that the lines below it tell their session at every level.
    let span = error_span!("session", session = %id, peer = %peer, user = field::Empty);
    async {
        let (first_timeout, write_timeout, login_deadline) = {
            let limits = &shared.config().limits;
            let deadline = seat.since + limits.login_timeout;
            let first_timeout = limits.frame_timeout_before_login;
            (first_timeout, limits.write_timeout, deadline)
        };
        let opening = expect_frames(reader, login_deadline);
        let opening = seat.evicted.run_until_cancelled(opening);
        let Some(Some(Some(reader))) = shutdown.drain.run_until_cancelled(opening).await else {
            return;
        };
        let (outbox, queue) = Outbox::new();
        let writing = write_frames(writer, queue, write_timeout);
        let stop = shutdown.stop.clone();
        // Whoever waits to send something is freed with the writer.
        let writing = async move { stop.run_until_cancelled(writing).await };
        let mut writing = tokio::spawn(writing.in_current_span());
        let session = Session {
            shared: shared.clone(),
            receiver: Receiver::new(reader, FrameCodec::before_login(), first_timeout),
            outbox,
            peer,
            id,
            shutdown: shutdown.clone(),
            seat,
            login_deadline,
            gone: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        // Until all is written the connection is there, and counts.
        let seat = run(session).await;
        let mut written = seat.evicted.run_until_cancelled(&mut writing).await;
        if written.is_none() {
            written = timeout(LAST_WORD, &mut writing).await.ok();
        }
        match written {
            Some(Ok(Some(Err(error)))) => info!(%error, "the peer stopped reading"),
            Some(_) => {}
            None => writing.abort(),
        }
    }
    .instrument(span)
    .await;
}

/// The stream, if the peer begins to speak frames.
async fn expect_frames<R: AsyncRead + Unpin>(reader: R, deadline: Instant) -> Option<Sniffed<R>> {
    match timeout_at(deadline, sniff(reader)).await {
        Ok(Ok(Some((Opening::Framed, reader)))) => return Some(reader),
        Ok(Ok(Some((opening, _)))) => info!(?opening, "closed: that is not spoken here"),
        Ok(Ok(None)) => debug!("closed by the peer before it said anything"),
        Ok(Err(error)) => info!(%error, "closed: the connection failed"),
        Err(_) => info!("closed: the peer said nothing"),
    }
    None
}

async fn run<R: AsyncRead + Unpin + Send>(mut session: Session<R>) -> Box<Seat> {
    let started = Instant::now();
    let stop = session.shutdown.stop.clone();
    let evicted = session.seat.evicted.clone();
    // Boxed: a session that idles for hours does not keep the room that its login needed.
    let admitting = Box::pin(session.admit());
    let admitting = async move {
        let admitted = evicted.run_until_cancelled(admitting).await;
        admitted.unwrap_or(Err(End::Evicted))
    };
    let admitted = stop.run_until_cancelled(admitting).await;
    let end = match admitted.unwrap_or(Err(End::Goodbye(GoodbyeReason::ShuttingDown))) {
        Ok(admitted) => Dispatcher::new(&mut session, admitted).run().await,
        Err(end) => end,
    };
    session.gone.cancel();
    session.tasks.close();
    session.tasks.wait().await;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(reason = %end, ms, "session ended");
    hang_up(session, &end).await
}

/// Says why, and reads on for a moment: closing on unread bytes would take the reason back.
async fn hang_up<R: AsyncRead + Unpin>(session: Session<R>, end: &End) -> Box<Seat> {
    let Session {
        outbox,
        mut receiver,
        seat,
        ..
    } = session;
    let Some(refusal) = end.refusal() else {
        return seat;
    };
    let farewell = async {
        let sent = outbox.send(encode_refusal(&refusal)).await;
        drop(outbox);
        if sent.is_ok() {
            receiver.discard_rest().await;
        }
    };
    if let End::Evicted = end {
        let _ = timeout(LAST_WORD, farewell).await;
    } else {
        let farewell = timeout(LINGER, farewell);
        let _ = seat.evicted.run_until_cancelled(farewell).await;
    }
    seat
}

fn session_id() -> String {
    let mut bytes = [0; 8];
    // Only people who read logs compare it; a constant is better than no session.
    let _ = getrandom::fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}

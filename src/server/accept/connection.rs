//! One connection, from its first byte to its last.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error_span, field, info};

use crate::connection::{FrameSink, Outbox, ReadAhead, Receiver, write_frames};
use crate::protocol::{FrameCodec, GoodbyeReason, encode_refusal};
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::accept::sniff::{Sniffed, SniffedProtocol, sniff};
use crate::server::accept::tls;
use crate::server::classic::Conversation;
use crate::server::session::peer::Peer;
use crate::server::session::request_loop::RequestLoop;
use crate::server::session::state::{CloseReason, Dialect, SessionState};
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::telemetry::AUDIT;

/// How long a peer that is hung up on may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The same for one whose place is waited for.
const LAST_WORD: Duration = Duration::from_millis(50);

/// For what a session that was cut off has said, to be written.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What a connection has, whatever is spoken on it.
struct Connection {
    shared: Arc<ServerState>,
    peer: Peer,
    id: Arc<str>,
    seat: Box<ConnectionPermit>,
    shutdown: Shutdown,
    login_deadline: Instant,
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve<R, W>(
    shared: &Arc<ServerState>,
    reader: R,
    outlet: FrameSink<W>,
    peer: Peer,
    seat: Box<ConnectionPermit>,
    shutdown: Shutdown,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let id: Arc<str> = session_id().into();
    // Of the highest level, so that the lines below it tell their session at every level.
    let span = error_span!("session", session = %id, peer = %peer, user = field::Empty);
    let connection = Connection {
        shared: shared.clone(),
        peer,
        id,
        login_deadline: seat.since + shared.config().limits.login_timeout,
        seat,
        shutdown,
    };
    async {
        match connection.first_bytes(reader).await {
            Some((SniffedProtocol::Framed, reader)) => {
                connection.converse(reader, outlet, Dialect::Framed).await;
            }
            // Boxed: a framed session does not keep the room that the translator needs.
            Some((SniffedProtocol::Classic, reader)) => {
                Box::pin(connection.translate(reader, outlet.into_inner())).await;
            }
            // Boxed: who speaks without TLS does not keep the room that it needs.
            Some((SniffedProtocol::Tls, reader)) => {
                let stream = tokio::io::join(ReadAhead::new(reader), outlet.into_inner());
                Box::pin(connection.encrypt(stream)).await;
            }
            Some((opening, _)) => not_spoken(shared, opening),
            None => {}
        }
    }
    .instrument(span)
    .await;
}

impl Connection {
    /// Looks at what the peer begins with, if it does in time.
    async fn first_bytes<R: AsyncRead + Unpin>(
        &self,
        reader: R,
    ) -> Option<(SniffedProtocol, Sniffed<R>)> {
        let silent = &self.shared.refusals.silent;
        let sniffing = timeout_at(self.login_deadline, sniff(reader));
        match self.unless_told_to_go(sniffing).await? {
            Ok(Ok(Some(sniffed))) => return Some(sniffed),
            Ok(Ok(None)) => debug!(
                name: "opening_closed",
                "closed by the peer before it said anything"
            ),
            Ok(Err(error)) => {
                if let Some(left_out) = silent.turn(Instant::now()) {
                    info!(
                        name: "opening_failed",
                        %error,
                        left_out,
                        "closed: the connection failed"
                    );
                }
            }
            Err(_) => {
                if let Some(left_out) = silent.turn(Instant::now()) {
                    info!(name: "opening_silent", left_out, "closed: the peer said nothing");
                }
            }
        }
        None
    }

    /// Does what comes before the session, unless the server stops or others need the place.
    async fn unless_told_to_go<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let work = self.seat.evicted.run_until_cancelled(work);
        self.shutdown.drain.run_until_cancelled(work).await?
    }

    /// Does the TLS handshake, within its own time.
    async fn secure<S>(mut self, stream: S) -> Option<(Self, TlsStream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(config) = self.shared.tls_config() else {
            not_spoken(&self.shared, SniffedProtocol::Tls);
            return None;
        };
        let patience = self.shared.config().limits.handshake_timeout;
        let deadline = self.login_deadline.min(Instant::now() + patience);
        let handshake = timeout_at(deadline, tls::handshake(config, stream));
        match self.unless_told_to_go(handshake).await? {
            Ok(Ok(secured)) => {
                debug!(
                    name: "encrypted",
                    certificate = secured.user.as_ref().map(field::display),
                    "encrypted"
                );
                self.peer = self.peer.secured(secured.user);
                return Some((self, secured.stream));
            }
            Ok(Err(error)) => {
                if let Some(left_out) = self.shared.refusals.handshake.turn(Instant::now()) {
                    info!(name: "tls_failed", %error, left_out, "closed: the TLS handshake failed");
                }
            }
            Err(_) => {
                if let Some(left_out) = self.shared.refusals.handshake.turn(Instant::now()) {
                    info!(name: "tls_late", left_out, "closed: the TLS handshake took too long");
                }
            }
        }
        None
    }

    /// Does the handshake, and decides again inside.
    async fn encrypt<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Boxed: the handshake is soon over.
        let Some((connection, stream)) = Box::pin(self.secure(stream)).await else {
            return;
        };
        let (reader, writer) = tokio::io::split(stream);
        let shared = connection.shared.clone();
        match connection.first_bytes(reader).await {
            Some((SniffedProtocol::Framed, reader)) => {
                connection
                    .converse(reader, writer.into(), Dialect::Framed)
                    .await;
            }
            Some((SniffedProtocol::Classic, reader)) => {
                Box::pin(connection.translate(reader, writer)).await;
            }
            Some((opening, _)) => not_spoken(&shared, opening),
            None => {}
        }
    }

    /// Has a session of its own for a client of the classic dialect, and translates.
    async fn translate<R, W>(self, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, stop) = (self.shared.clone(), self.shutdown.stop.clone());
        let (conversation, reader, writer) =
            Conversation::new(reader, writer, shared, self.peer.clone());
        let mut conversation = pin!(stop.run_until_cancelled(conversation.run()));
        let mut session = pin!(self.converse(reader, writer.into(), Dialect::Classic));
        let seat = tokio::select! {
            seat = &mut session => seat,
            _ = &mut conversation => {
                // It has let go of its end, and the session notices.
                session.await;
                return;
            }
        };
        // What the session said last is still to be passed on.
        if seat
            .evicted
            .run_until_cancelled(&mut conversation)
            .await
            .is_none()
        {
            let _ = timeout(LAST_WORD, conversation).await;
        }
    }

    /// Speaks in frames until the session ends. Until its seat is dropped, the connection counts.
    async fn converse<R, W>(
        self,
        reader: R,
        outlet: FrameSink<W>,
        dialect: Dialect,
    ) -> Box<ConnectionPermit>
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (first_timeout, write_timeout) = {
            let limits = &self.shared.config().limits;
            (limits.frame_timeout_before_login, limits.write_timeout)
        };
        let (outbox, queue) = Outbox::of(&outlet);
        let writing = write_frames(outlet, queue, write_timeout);
        let (shared, stop) = (self.shared.clone(), self.shutdown.stop.clone());
        let cut = CancellationToken::new();
        let is_cut = cut.clone();
        // Whoever waits to send something is freed with the writer.
        let writing = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                () = cut_off(&is_cut) => None,
                written = writing => Some(written),
            }
        };
        let mut writing = tokio::spawn(writing.in_current_span());
        let session = SessionState {
            shared: self.shared,
            receiver: Receiver::new(reader, FrameCodec::before_login(), first_timeout),
            outbox,
            dialect,
            peer: self.peer,
            id: self.id,
            shutdown: self.shutdown,
            seat: self.seat,
            login_deadline: self.login_deadline,
            gone: CancellationToken::new(),
            cut,
            tasks: TaskTracker::new(),
        };
        // Until all is written the connection is there, and counts.
        let seat = run(session).await;
        let mut written = seat.evicted.run_until_cancelled(&mut writing).await;
        if written.is_none() {
            written = timeout(LAST_WORD, &mut writing).await.ok();
        }
        match written {
            Some(Ok(Some(Err(error)))) => {
                if let Some(left_out) = shared.refusals.unread.turn(Instant::now()) {
                    info!(
                        name: "peer_stopped_reading",
                        %error,
                        left_out,
                        "the peer stopped reading"
                    );
                }
            }
            Some(_) => {}
            None => writing.abort(),
        }
        seat
    }
}

/// Resolves once a session that was cut off has had the time to say so.
async fn cut_off(cut: &CancellationToken) {
    cut.cancelled().await;
    sleep(LAST_WORDS).await;
}

fn not_spoken(shared: &ServerState, opening: SniffedProtocol) {
    if let Some(left_out) = shared.refusals.opening.turn(Instant::now()) {
        info!(name: "opening_unknown", ?opening, left_out, "closed: that is not spoken here");
    }
}

async fn run<R: AsyncRead + Unpin + Send>(mut session: SessionState<R>) -> Box<ConnectionPermit> {
    let started = Instant::now();
    let stop = session.shutdown.stop.clone();
    let evicted = session.seat.evicted.clone();
    // Boxed: a session that idles for hours does not keep the room that its login needed.
    let admitting = Box::pin(session.admit());
    let admitting = async move {
        let admitted = evicted.run_until_cancelled(admitting).await;
        admitted.unwrap_or(Err(CloseReason::Evicted))
    };
    let admitted = stop.run_until_cancelled(admitting).await;
    let mut lines = None;
    let end = match admitted.unwrap_or(Err(CloseReason::Goodbye(GoodbyeReason::ShuttingDown))) {
        Ok(admitted) => {
            lines = Some(Arc::clone(&admitted.member.lines));
            RequestLoop::new(&mut session, admitted).run().await
        }
        Err(end) => end,
    };
    session.gone.cancel();
    session.shared.datagrams.end(&session.id);
    session.tasks.close();
    session.tasks.wait().await;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(lines) = lines {
        lines.settle();
        info!(name: "session_ended", target: AUDIT, reason = %end, ms, "session ended");
    } else if let Some(left_out) = session.shared.refusals.visitor.turn(Instant::now()) {
        info!(name: "session_ended", reason = %end, ms, left_out, "session ended");
    }
    hang_up(session, &end).await
}

/// Says why, and reads on for a moment: closing on unread bytes would take the reason back.
async fn hang_up<R: AsyncRead + Unpin>(
    session: SessionState<R>,
    end: &CloseReason,
) -> Box<ConnectionPermit> {
    let SessionState {
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
    if let CloseReason::Evicted = end {
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

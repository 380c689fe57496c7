//! Serves one connection from its first byte to its last: detects its protocol, does the TLS handshake,
//! and runs its session. One task runs the session, a second one writes to the socket.

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
use crate::server::classic::ClassicConversation;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::dialect::Dialect;
use crate::server::session::peer::Peer;
use crate::server::session::request_loop::RequestLoop;
use crate::server::session::state::SessionState;
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::telemetry::AUDIT;

/// How long the server reads on after it sent the reason for closing, so that the peer can read it.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for an evicted connection, whose permit another connection waits for.
const EVICTED_LINGER_TIMEOUT: Duration = Duration::from_millis(50);

/// How long the writer may take to write the queued frames of an aborted session.
const ABORT_FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// A connection whose protocol is not known yet.
struct IncomingConnection {
    shared: Arc<ServerState>,
    peer: Peer,
    id: Arc<str>,
    permit: Box<ConnectionPermit>,
    shutdown: Shutdown,
    login_deadline: Instant,
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve<R, W>(
    shared: &Arc<ServerState>,
    reader: R,
    outlet: FrameSink<W>,
    peer: Peer,
    connection_permit: Box<ConnectionPermit>,
    shutdown: Shutdown,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let id: Arc<str> = session_id().into();
    // At the level `error`, so that lines of every level name their session.
    let span = error_span!("session", session = %id, peer = %peer, user = field::Empty);
    let connection = IncomingConnection {
        shared: shared.clone(),
        peer,
        id,
        login_deadline: connection_permit.accepted_at + shared.config().limits.login_timeout,
        permit: connection_permit,
        shutdown,
    };
    async {
        match connection.sniff_protocol(reader).await {
            Some((SniffedProtocol::Framed, reader)) => {
                connection
                    .run_session(reader, outlet, Dialect::Framed)
                    .await;
            }
            // Boxed, so that the future of a framed session does not include the translator.
            Some((SniffedProtocol::Classic, reader)) => {
                Box::pin(connection.serve_classic(reader, outlet.into_inner())).await;
            }
            // Boxed, so that the future of a session without TLS does not include the TLS state.
            Some((SniffedProtocol::Tls, reader)) => {
                let stream = tokio::io::join(ReadAhead::new(reader), outlet.into_inner());
                Box::pin(connection.serve_encrypted(stream)).await;
            }
            Some((protocol, _)) => log_unknown_protocol(shared, protocol),
            None => {}
        }
    }
    .instrument(span)
    .await;
}

impl IncomingConnection {
    /// Detects the protocol; `None` if the peer sends nothing in time.
    async fn sniff_protocol<R: AsyncRead + Unpin>(
        &self,
        reader: R,
    ) -> Option<(SniffedProtocol, Sniffed<R>)> {
        let silent = &self.shared.refusal_logs.silent;
        let sniffing = timeout_at(self.login_deadline, sniff(reader));
        match self.unless_interrupted(sniffing).await? {
            Ok(Ok(Some(sniffed))) => return Some(sniffed),
            Ok(Ok(None)) => debug!(
                name: "opening_closed",
                "closed by the peer before it sent anything"
            ),
            Ok(Err(error)) => {
                if let Some(left_out) = silent.allow(Instant::now()) {
                    info!(
                        name: "opening_failed",
                        %error,
                        left_out,
                        "closed: the connection failed"
                    );
                }
            }
            Err(_) => {
                if let Some(left_out) = silent.allow(Instant::now()) {
                    info!(name: "opening_silent", left_out, "closed: the peer sent nothing in time");
                }
            }
        }
        None
    }

    /// Runs a step before the session; `None` if the server drains or the connection is evicted.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let work = self.permit.evicted.run_until_cancelled(work);
        self.shutdown.drain.run_until_cancelled(work).await?
    }

    /// Does the TLS handshake within its timeout.
    async fn handshake<S>(mut self, stream: S) -> Option<(Self, TlsStream<S>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(config) = self.shared.tls_config() else {
            log_unknown_protocol(&self.shared, SniffedProtocol::Tls);
            return None;
        };
        let handshake_timeout = self.shared.config().limits.handshake_timeout;
        let deadline = self.login_deadline.min(Instant::now() + handshake_timeout);
        let handshake = timeout_at(deadline, tls::handshake(config, stream));
        match self.unless_interrupted(handshake).await? {
            Ok(Ok(secured)) => {
                debug!(
                    name: "encrypted",
                    certificate = secured.user.as_ref().map(field::display),
                    "TLS handshake done"
                );
                self.peer = self.peer.secured(secured.user);
                return Some((self, secured.stream));
            }
            Ok(Err(error)) => {
                if let Some(left_out) = self.shared.refusal_logs.handshake.allow(Instant::now()) {
                    info!(name: "tls_failed", %error, left_out, "closed: the TLS handshake failed");
                }
            }
            Err(_) => {
                if let Some(left_out) = self.shared.refusal_logs.handshake.allow(Instant::now()) {
                    info!(name: "tls_late", left_out, "closed: the TLS handshake took too long");
                }
            }
        }
        None
    }

    /// Does the TLS handshake, and detects the protocol within TLS.
    async fn serve_encrypted<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Boxed, so that the future of the session does not include the handshake.
        let Some((connection, stream)) = Box::pin(self.handshake(stream)).await else {
            return;
        };
        let (reader, writer) = tokio::io::split(stream);
        let shared = connection.shared.clone();
        match connection.sniff_protocol(reader).await {
            Some((SniffedProtocol::Framed, reader)) => {
                connection
                    .run_session(reader, writer.into(), Dialect::Framed)
                    .await;
            }
            Some((SniffedProtocol::Classic, reader)) => {
                Box::pin(connection.serve_classic(reader, writer)).await;
            }
            Some((protocol, _)) => log_unknown_protocol(&shared, protocol),
            None => {}
        }
    }

    /// Runs a session for a client of the classic dialect, with a translator between them.
    async fn serve_classic<R, W>(self, reader: R, writer: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (shared, stop) = (self.shared.clone(), self.shutdown.stop.clone());
        let (conversation, reader, writer) =
            ClassicConversation::new(reader, writer, shared, self.peer.clone());
        let mut conversation = pin!(stop.run_until_cancelled(conversation.run()));
        let mut session = pin!(self.run_session(reader, writer.into(), Dialect::Classic));
        let permit = tokio::select! {
            permit = &mut session => permit,
            _ = &mut conversation => {
                // The translator has closed its end, which ends the session.
                session.await;
                return;
            }
        };
        // The translator still has to send the last messages of the session.
        if permit
            .evicted
            .run_until_cancelled(&mut conversation)
            .await
            .is_none()
        {
            let _ = timeout(EVICTED_LINGER_TIMEOUT, conversation).await;
        }
    }

    /// Runs a session until it ends. The connection counts until the returned permit is dropped.
    async fn run_session<R, W>(
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
        let (outbox, queue) = Outbox::for_sink(&outlet);
        let writing = write_frames(outlet, queue, write_timeout);
        let (shared, stop) = (self.shared.clone(), self.shutdown.stop.clone());
        let writer_abort = CancellationToken::new();
        let abort = writer_abort.clone();
        // When the writer ends, tasks that wait to send something fail.
        let writing = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                () = aborted(&abort) => None,
                written = writing => Some(written),
            }
        };
        let mut writing = tokio::spawn(writing.in_current_span());
        let mut session = SessionState {
            shared: self.shared,
            receiver: Receiver::new(reader, FrameCodec::before_login(), first_timeout),
            outbox,
            dialect,
            peer: self.peer,
            id: self.id,
            shutdown: self.shutdown,
            connection_permit: self.permit,
            login_deadline: self.login_deadline,
            session_ended: CancellationToken::new(),
            writer_abort,
            tasks: TaskTracker::new(),
        };
        let end = run(&mut session).await;
        // The connection counts until everything is written. Boxed, so that the future of an idle session does
        // not include it.
        let permit = Box::pin(send_close_reason(session, &end)).await;
        let mut written = permit.evicted.run_until_cancelled(&mut writing).await;
        if written.is_none() {
            written = timeout(EVICTED_LINGER_TIMEOUT, &mut writing).await.ok();
        }
        match written {
            Some(Ok(Some(Err(error)))) => {
                if let Some(left_out) = shared.refusal_logs.unread_output.allow(Instant::now()) {
                    info!(
                        name: "peer_stopped_reading",
                        %error,
                        left_out,
                        "closed: the peer does not read"
                    );
                }
            }
            Some(_) => {}
            None => writing.abort(),
        }
        permit
    }
}

/// Resolves once an aborted session has had the time to write its queued frames.
async fn aborted(abort: &CancellationToken) {
    abort.cancelled().await;
    sleep(ABORT_FLUSH_TIMEOUT).await;
}

fn log_unknown_protocol(shared: &ServerState, protocol: SniffedProtocol) {
    if let Some(left_out) = shared.refusal_logs.unknown_protocol.allow(Instant::now()) {
        info!(name: "opening_unknown", opening = ?protocol, left_out, "closed: the peer speaks no protocol of this server");
    }
}

/// Runs the login and the request loop, and returns the reason for the end.
async fn run<R: AsyncRead + Unpin + Send>(session: &mut SessionState<R>) -> CloseReason {
    let started = Instant::now();
    let stop = session.shutdown.stop.clone();
    let evicted = session.connection_permit.evicted.clone();
    // Boxed, so that the future of an idle session does not include the login.
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
            let mut requests = RequestLoop::new(session, *admitted);
            requests.run().await
        }
        Err(end) => end,
    };
    session.session_ended.cancel();
    session.shared.datagrams.revoke_tickets(&session.id);
    session.tasks.close();
    session.tasks.wait().await;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(lines) = lines {
        lines.report_left_out();
        info!(name: "session_ended", target: AUDIT, reason = %end, ms, "session ended");
    } else if let Some(left_out) = session
        .shared
        .refusal_logs
        .unauthenticated
        .allow(Instant::now())
    {
        info!(name: "session_ended", reason = %end, ms, left_out, "session ended");
    }
    end
}

/// Sends the reason, and reads on for a moment: closing a socket with unread bytes resets the connection
/// and may discard the reason, or the last replies of a session that has drained.
async fn send_close_reason<R: AsyncRead + Unpin>(
    session: SessionState<R>,
    end: &CloseReason,
) -> Box<ConnectionPermit> {
    let SessionState {
        outbox,
        mut receiver,
        connection_permit,
        shutdown,
        ..
    } = session;
    let refusal = end.refusal();
    let has_drained = matches!(end, CloseReason::Goodbye(GoodbyeReason::ShuttingDown));
    if refusal.is_none() && !has_drained {
        return connection_permit;
    }
    let sending = async {
        let sent = match &refusal {
            Some(refusal) => outbox.send(encode_refusal(refusal)).await,
            None => Ok(()),
        };
        drop(outbox);
        if sent.is_ok() {
            receiver.discard_rest().await;
        }
    };
    if let CloseReason::Evicted = end {
        let _ = timeout(EVICTED_LINGER_TIMEOUT, sending).await;
    } else if has_drained {
        let sending = timeout(LINGER_TIMEOUT, sending);
        let _ = shutdown.stop.run_until_cancelled(sending).await;
    } else {
        let sending = timeout(LINGER_TIMEOUT, sending);
        let _ = connection_permit.evicted.run_until_cancelled(sending).await;
    }
    connection_permit
}

fn session_id() -> String {
    let mut bytes = [0; 8];
    // It only identifies the session in logs, so a constant is better than no session.
    let _ = getrandom::fill(&mut bytes);
    HEXLOWER.encode(&bytes)
}

//! The loop: it waits for the next event of a session and handles it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::connection::ReceiveError;
use crate::protocol::{Frame, GoodbyeReason, Nothing, Request, encode_ok};
use crate::server::commands;
use crate::server::session::close_reason::CloseReason;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::state::{LoopEvent, RequestLoop, SessionPhase};
use crate::server::session::state::SessionState;

/// The time limit for the goodbye to a session that the server ends at once.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(50);

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    /// Runs until the session ends, and returns the reason. The caller owns the loop: the future of a method
    /// that takes it by value would hold it twice.
    pub(crate) async fn run(&mut self) -> CloseReason {
        let stop = self.registration.stop().clone();
        let closed = self.member.authority.closed.clone();
        let outbox = self.session.outbox.clone();
        let mut access_follower = pin!(commands::follow_access(
            self.member.clone(),
            Arc::clone(&self.subscription),
        ));
        loop {
            let event = if let Some(frame) = self.buffered_frame() {
                LoopEvent::Frame(frame)
            } else {
                tokio::select! {
                    biased;
                    () = closed.cancelled() => LoopEvent::Closed,
                    never = &mut access_follower => match never {},
                    event = self.next_event() => event,
                }
            };
            let is_frame = matches!(event, LoopEvent::Frame(_));
            // Handling an event ends with the connection and with the account. It is polled first:
            // most frames finish at once and register no waker.
            let handled = tokio::select! {
                biased;
                handled = self.handle(event) => handled,
                () = stop.cancelled() => Err(self.stop_reason()),
                () = closed.cancelled() => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
                () = outbox.closed() => Err(CloseReason::Disconnected),
                never = &mut access_follower => match never {},
            };
            if let Err(end) = handled {
                if let CloseReason::Goodbye(
                    reason @ (GoodbyeReason::Kicked | GoodbyeReason::AccountClosed),
                ) = end
                {
                    self.session.writer_abort.cancel();
                    // A peer that does not read gets no goodbye.
                    let goodbye = self.session.say_goodbye(reason);
                    // Boxed, so that the future of an idle session does not include it.
                    let _ = Box::pin(timeout(GOODBYE_TIMEOUT, goodbye)).await;
                }
                return end;
            }
            if is_frame {
                self.idle.last_activity().record();
            }
        }
    }

    /// Why the session is to end at once.
    pub(super) fn stop_reason(&self) -> CloseReason {
        CloseReason::Goodbye(if self.registration.is_kicked() {
            GoodbyeReason::Kicked
        } else {
            GoodbyeReason::ShuttingDown
        })
    }

    pub(super) async fn next_event(&mut self) -> LoopEvent {
        let has_unclaimed_batch = self.has_unclaimed_batch();
        let SessionState {
            receiver,
            outbox,
            tasks,
            shutdown,
            ..
        } = &mut *self.session;
        let received = async {
            if has_unclaimed_batch {
                let frame = receiver.next_if_started().await;
                frame.map_or(LoopEvent::Pause, LoopEvent::Frame)
            } else {
                LoopEvent::Frame(receiver.next().await)
            }
        };
        tokio::select! {
            biased;
            () = self.registration.stop().cancelled() => LoopEvent::Stop,
            () = outbox.closed() => LoopEvent::Disconnected,
            () = shutdown.drain.cancelled(), if self.phase == SessionPhase::Serving => LoopEvent::Drain,
            () = tasks.wait(), if self.phase == SessionPhase::Draining => LoopEvent::Drained,
            event = received => event,
            () = self.idle.expired(|| !tasks.is_empty()) => LoopEvent::Idle,
        }
    }

    /// The next frame, if it has arrived and no other event comes before it. Buffered frames skip the
    /// select over all other events.
    pub(super) fn buffered_frame(&mut self) -> Option<Result<Option<Frame>, ReceiveError>> {
        let is_due = self.registration.stop().is_cancelled()
            || self.session.shutdown.drain.is_cancelled()
            || self.member.authority.closed.is_cancelled();
        // The task that follows a change of access runs before the next frame.
        let has_changed = self
            .authority_changes
            .has_changed()
            .is_ok_and(|changed| changed);
        if has_changed {
            self.authority_changes.mark_unchanged();
        }
        if is_due || has_changed {
            return None;
        }
        self.session.receiver.next().now_or_never()
    }

    pub(super) async fn handle(&mut self, event: LoopEvent) -> Result<(), CloseReason> {
        match event {
            LoopEvent::Frame(frame) => match frame? {
                None => Box::pin(self.disconnected()).await,
                Some(Frame::Data { stream, chunk }) if self.is_collecting(stream) => {
                    Box::pin(self.collect(chunk)).await
                }
                Some(Frame::Data { stream, chunk }) => {
                    if self.has_unclaimed_batch() {
                        Box::pin(self.start_batches()).await?;
                    }
                    Ok(self.transfers.data(stream, chunk).await?)
                }
                // Boxed, so that the future of an idle session does not include it.
                Some(Frame::Control(json)) => Box::pin(self.control(json)).await,
            },
            LoopEvent::Pause => Box::pin(self.start_batches()).await,
            LoopEvent::Drain => Box::pin(self.start_draining()).await,
            LoopEvent::Idle => {
                let reason = GoodbyeReason::Idle;
                Box::pin(self.session.say_goodbye(reason)).await?;
                Err(CloseReason::Goodbye(reason))
            }
            LoopEvent::Drained => Err(CloseReason::Goodbye(GoodbyeReason::ShuttingDown)),
            LoopEvent::Stop => Err(self.stop_reason()),
            LoopEvent::Closed => Err(CloseReason::Goodbye(GoodbyeReason::AccountClosed)),
            LoopEvent::Disconnected => Err(CloseReason::Disconnected),
        }
    }

    /// Handles a control frame.
    async fn control(&mut self, json: Bytes) -> Result<(), CloseReason> {
        match Request::parse(&json) {
            Ok((id, request)) => self.start_request(id, request).await,
            Err(bad) => self.refuse(bad).await,
        }
    }

    /// The server drains: requests that run may end, and no new ones begin.
    async fn start_draining(&mut self) -> Result<(), CloseReason> {
        self.start_batches().await?;
        self.phase = SessionPhase::Draining;
        self.session.tasks.close();
        let goodbye = self.session.say_goodbye(GoodbyeReason::ShuttingDown);
        Ok(goodbye.await?)
    }

    /// The peer sends nothing more, but may still read: transfers that need no more input finish, and
    /// other work is cancelled.
    pub(super) async fn disconnected(&mut self) -> Result<(), CloseReason> {
        self.member.peer_left.cancel();
        Box::pin(self.start_batches()).await?;
        self.wait_for_tasks().await;
        Err(CloseReason::Disconnected)
    }

    /// Waits until all earlier requests are answered.
    pub(super) async fn wait_for_tasks(&mut self) {
        self.transfers.close_uploads();
        self.transfers.running().cancel_log_requests();
        self.session.tasks.close();
        self.session.tasks.wait().await;
    }

    /// Answers once all earlier requests are answered.
    pub(super) async fn quit(&mut self, log: RequestLog, id: u32) -> Result<(), CloseReason> {
        self.wait_for_tasks().await;
        // A client that learns that the session has ended can rely on it.
        self.session
            .shared
            .datagrams
            .revoke_tickets(&self.session.id);
        // Events that were not written by now come at the next login: nothing follows the reply.
        self.session.outbox.events().close();
        let reply = log.close(Ok(encode_ok(id, &Nothing {})).into());
        self.session.outbox.send_after_data(reply).await?;
        Err(CloseReason::Quit)
    }
}

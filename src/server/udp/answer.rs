//! Runs a verified request and sends its reply.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error_span};

use crate::protocol::{
    Call, DatagramRequest, Nothing, SIGNATURE, Say, SayReply, Verified, Who, WhoReply, WireError,
    encode_error_within, encode_ok, encode_who_within,
};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::limits::request_lines::LineBudget;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestLog;
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::server::udp::replay::ReplayVerdict;
use crate::server::udp::tickets::{DatagramTicket, TicketOwner};

/// A request that is being handled.
struct DatagramCall {
    shared: Arc<ServerState>,
    ticket: Arc<DatagramTicket>,
    from: SocketAddr,
    id: u32,
    /// The most bytes of JSON in the reply, so that it is not longer than the request.
    max_reply_bytes: usize,
}

/// Runs a request, or sends the kept reply if it ran before.
pub(crate) fn answer(
    shared: &Arc<ServerState>,
    shutdown: &Shutdown,
    ticket: Arc<DatagramTicket>,
    request: &Verified<'_>,
    from: SocketAddr,
) {
    let datagrams = &shared.datagrams;
    // Before the request is recorded, so that a repetition of it can succeed.
    let Ok(permit) = datagrams.permits.clone().try_acquire_owned() else {
        return datagrams.log_dropped(from, "too many requests are being handled");
    };
    match ticket.begin_request(request, from) {
        ReplayVerdict::New { .. } => {}
        ReplayVerdict::Answered(reply) => return datagrams.send(&reply, from),
        ReplayVerdict::Wait => return,
        ReplayVerdict::Never => {
            return datagrams.log_dropped(from, "its id is too old or was used before");
        }
    }
    let call = DatagramCall {
        shared: shared.clone(),
        ticket,
        from,
        id: request.id(),
        max_reply_bytes: request.max_bytes(),
    };
    match request.request() {
        Err(bad) => call.refuse(&bad.into()),
        Ok(DatagramRequest::Ack(ack)) => {
            call.ticket.acknowledge(ack.seq);
            call.reply(Some(encode_ok(call.id, &Nothing {})));
        }
        Ok(_) if shutdown.drain.is_cancelled() => call.refuse(&CommandError::ShuttingDown),
        Ok(DatagramRequest::Who) => match call.ticket.owner.check() {
            Ok(()) => call.who(),
            Err(error) => call.refuse(&error),
        },
        Ok(DatagramRequest::Say(say)) => {
            let session_ended = call.ticket.owner.session_ended().clone();
            let span = call.span();
            let work = async move {
                session_ended.run_until_cancelled(call.say(say)).await;
                drop(permit);
            };
            tokio::spawn(work.instrument(span));
        }
    }
}

impl DatagramCall {
    fn who(&self) {
        let _span = self.span().entered();
        let job = RequestLog::new(
            &self.shared.metrics,
            self.lines(),
            self.id,
            &Who::COMMAND,
            None,
        );
        let who = self.ticket.owner.who(self.max_reply_bytes);
        let reply = encode_who_within(self.id, &who, self.max_reply_bytes);
        self.reply(Some(job.close(Ok(reply).into())));
    }

    async fn say(&self, say: Say) {
        let job = RequestLog::new(
            &self.shared.metrics,
            self.lines(),
            self.id,
            &Say::COMMAND,
            None,
        );
        let work = async {
            self.ticket.owner.check()?;
            let reply = self.ticket.owner.say(say).await?;
            self.shared.metrics.record_message(&reply);
            Ok(encode_ok(self.id, &reply))
        };
        let outcome = job.guard(work).await;
        let error = outcome.reply.as_ref().err().map(WireError::from);
        let reply = job.close(outcome);
        self.reply(match error {
            Some(error) => encode_error_within(self.id, &error, self.max_reply_bytes),
            None => Some(reply),
        });
    }

    fn lines(&self) -> Arc<LineBudget> {
        self.ticket.owner.lines()
    }

    /// The span that names session, peer and user in log lines.
    fn span(&self) -> Span {
        let owner = &self.ticket.owner;
        let (session, user) = (owner.session(), owner.user());
        error_span!("datagram", session = %session, peer = %self.from, user = %user)
    }

    fn refuse(&self, error: &CommandError) {
        let error = WireError::from(error);
        self.reply(encode_error_within(self.id, &error, self.max_reply_bytes));
    }

    /// Sends and keeps the reply, unless it is longer than the request.
    fn reply(&self, json: Option<Bytes>) {
        let json = json.filter(|json| json.len() <= self.max_reply_bytes);
        let reply = json.map(|json| Bytes::from(self.ticket.key.sign(&json)));
        let length = self.max_reply_bytes + SIGNATURE;
        self.ticket
            .finish_request(self.id, reply.clone(), self.from, length);
        if let Some(reply) = reply {
            self.shared.datagrams.send(&reply, self.from);
        }
    }
}

impl TicketOwner for Member {
    fn session(&self) -> &Arc<str> {
        &self.session
    }

    fn user(&self) -> &str {
        self.authority.name()
    }

    fn session_ended(&self) -> &CancellationToken {
        &self.peer_left
    }

    fn is_closed(&self) -> bool {
        self.authority.closed.is_cancelled()
    }

    fn lines(&self) -> Arc<LineBudget> {
        Arc::clone(&self.lines)
    }

    fn check(&self) -> Result<(), CommandError> {
        self.check_in_force()
    }

    fn who(&self, max_bytes: usize) -> WhoReply {
        commands::who(self, max_bytes)
    }

    fn say(&self, say: Say) -> BoxFuture<'_, Result<SayReply, CommandError>> {
        Box::pin(async move {
            let message = commands::say(say, self).await?;
            Ok(message.stored().await?)
        })
    }
}

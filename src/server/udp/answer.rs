//! From a request that was verified to its one reply.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{Instrument, Span, error_span};

use crate::protocol::{
    DatagramRequest, Nothing, SIGNATURE, Say, Verified, WireError, encode_error_within, encode_ok,
    encode_who_within,
};
use crate::server::commands;
use crate::server::error::CommandError;
use crate::server::limits::request_lines::LineBudget;
use crate::server::session::request_log::RequestLog;
use crate::server::shutdown::Shutdown;
use crate::server::state::ServerState;
use crate::server::udp::replay::Verdict;
use crate::server::udp::tickets::DatagramTicket;

/// A request that was begun.
struct Begun {
    shared: Arc<ServerState>,
    ticket: Arc<DatagramTicket>,
    from: SocketAddr,
    id: u32,
    /// How long the JSON of the reply may be.
    room: usize,
}

/// Does what is asked, unless that was done before.
pub(crate) fn take(
    shared: &Arc<ServerState>,
    shutdown: &Shutdown,
    ticket: Arc<DatagramTicket>,
    request: &Verified<'_>,
    from: SocketAddr,
) {
    let datagrams = &shared.datagrams;
    // Before it counts as begun: its client comes again.
    let Ok(permit) = datagrams.under_way.clone().try_acquire_owned() else {
        return datagrams.drop(from, "too many are worked on");
    };
    match ticket.begin(request, from) {
        Verdict::New { .. } => {}
        Verdict::Answered(reply) => return datagrams.send(&reply, from),
        Verdict::Wait => return,
        Verdict::Never => return datagrams.drop(from, "it is old, or not the first of its id"),
    }
    let begun = Begun {
        shared: shared.clone(),
        ticket,
        from,
        id: request.id(),
        room: request.room(),
    };
    match request.request() {
        Err(bad) => begun.refuse(&bad.into()),
        Ok(DatagramRequest::Ack(ack)) => {
            begun.ticket.acknowledged(ack.seq);
            begun.reply(Some(encode_ok(begun.id, &Nothing {})));
        }
        Ok(_) if shutdown.drain.is_cancelled() => begun.refuse(&CommandError::ShuttingDown),
        Ok(DatagramRequest::Who) => match begun.ticket.member.check() {
            Ok(()) => begun.who(),
            Err(error) => begun.refuse(&error),
        },
        Ok(DatagramRequest::Say(say)) => {
            let gone = begun.ticket.member.gone.clone();
            let span = begun.span();
            let work = async move {
                gone.run_until_cancelled(begun.say(say)).await;
                drop(permit);
            };
            tokio::spawn(work.instrument(span));
        }
    }
}

impl Begun {
    fn who(&self) {
        let _span = self.span().entered();
        let job = RequestLog::new(&self.shared.metrics, self.lines(), self.id, "who", None);
        let who = commands::who(&self.ticket.member, self.room);
        let reply = encode_who_within(self.id, &who, self.room);
        self.reply(Some(job.close(Ok(reply).into())));
    }

    async fn say(&self, say: Say) {
        let job = RequestLog::new(&self.shared.metrics, self.lines(), self.id, "say", None);
        let work = async {
            self.ticket.member.check()?;
            let said = commands::say(say, &self.ticket.member).await?;
            let reply = said.done().await?;
            self.shared.metrics.said(&reply);
            Ok(encode_ok(self.id, &reply))
        };
        let outcome = job.guard(work).await;
        let error = outcome.reply.as_ref().err().map(WireError::from);
        let reply = job.close(outcome);
        self.reply(match error {
            Some(error) => encode_error_within(self.id, &error, self.room),
            None => Some(reply),
        });
    }

    fn lines(&self) -> Arc<LineBudget> {
        Arc::clone(&self.ticket.member.lines)
    }

    /// Lines of the log tell whose session it is.
    fn span(&self) -> Span {
        let member = &self.ticket.member;
        let (session, user) = (&member.session, member.authority.name());
        error_span!("datagram", session = %session, peer = %self.from, user = %user)
    }

    fn refuse(&self, error: &CommandError) {
        let error = WireError::from(error);
        self.reply(encode_error_within(self.id, &error, self.room));
    }

    /// Sends the reply, if there is one that is not longer than the request.
    fn reply(&self, json: Option<Bytes>) {
        let json = json.filter(|json| json.len() <= self.room);
        let reply = json.map(|json| Bytes::from(self.ticket.key.sign(&json)));
        let length = self.room + SIGNATURE;
        self.ticket
            .finish(self.id, reply.clone(), self.from, length);
        if let Some(reply) = reply {
            self.shared.datagrams.send(&reply, self.from);
        }
    }
}

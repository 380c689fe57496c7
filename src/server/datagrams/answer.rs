//! From a request that was verified to its one reply.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tracing::{Instrument, error_span};

use super::replay::Verdict;
use super::{Shared, Shutdown, Ticket};
use crate::protocol::{
    BadRequest, DatagramRequest, Nothing, SIGNATURE, Verified, WireError, encode_error_within,
    encode_ok,
};
use crate::server::CommandError;
use crate::server::job::Job;

/// A request that was begun.
struct Begun {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
    from: SocketAddr,
    id: u32,
    /// How long the JSON of the reply may be.
    room: usize,
}

/// Does what is asked, unless that was done before.
pub(super) fn take(
    shared: &Arc<Shared>,
    shutdown: &Shutdown,
    ticket: Arc<Ticket>,
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
        Ok(request) => {
            let member = &begun.ticket.member;
            let span = error_span!(
                "datagram",
                session = %member.session,
                peer = %from,
                user = %member.account.name
            );
            let work = async move {
                let gone = begun.ticket.member.gone.clone();
                gone.run_until_cancelled(begun.work(request)).await;
                drop(permit);
            };
            tokio::spawn(work.instrument(span));
        }
    }
}

impl Begun {
    /// Does the command as if it had come over the connection, and replies.
    async fn work(&self, request: DatagramRequest) {
        let (cmd, to) = match &request {
            DatagramRequest::Who => ("who", None),
            DatagramRequest::Say(say) => ("say", Some(say.to.clone())),
            DatagramRequest::Ack(_) => ("ack", None),
        };
        let job = Job::new(self.id, cmd, None).with_to(to);
        let outcome = job.guard(self.done(request)).await;
        let error = outcome.reply.as_ref().err().map(WireError::from);
        let reply = job.close(outcome);
        match error {
            Some(error) => self.reply(encode_error_within(self.id, &error, self.room)),
            None => self.reply(Some(reply)),
        }
    }

    async fn done(&self, _request: DatagramRequest) -> Result<Bytes, CommandError> {
        let mut bad = BadRequest::of_field(self.id, "who", "cmd", "not yet offered");
        bad.unsupported = true;
        Err(bad.into())
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

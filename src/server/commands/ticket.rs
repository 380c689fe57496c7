//! `ticket`: the right to speak by datagram for this session.

use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use crate::connection::EventQueue;
use crate::protocol::{TicketReply, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::peer::Peer;
use crate::server::udp::TicketObserver;

/// Makes a ticket; the messages that come to this session go to its holder, too.
pub(crate) fn ticket(
    id: u32,
    member: &Member,
    peer: &Peer,
    events: &EventQueue,
) -> Result<Bytes, CommandError> {
    let datagrams = &member.shared.datagrams;
    let Some(port) = datagrams.port() else {
        return Err(CommandError::NoDatagrams);
    };
    if !peer.is_private() && !member.shared.config().auth.plaintext_logins {
        return Err(CommandError::PlaintextTicket);
    }
    let issued = datagrams
        .issue_ticket(Box::new(member.clone()))
        .map_err(|error| {
            error!(name: "no_random_bytes", %error, "the system gives no random bytes");
            CommandError::Internal
        });
    let (ticket, expires) = issued?;
    events.set_observer(TicketObserver::new(datagrams, Arc::clone(&member.session)));
    let reply = TicketReply {
        ticket: ticket.name.clone(),
        secret: ticket.key.secret(),
        expires,
        port,
    };
    Ok(encode_ok(id, &reply))
}

//! `hello`: what this server is and offers.

use jiff::Timestamp;

use crate::protocol::{HelloReply, MAX_CHUNK, MAX_CONTROL, VERSION};
use crate::server::session::peer::Peer;
use crate::server::state::{SERVER_VERSION, ServerState};

pub(crate) fn answer(shared: &ServerState, peer: &Peer) -> HelloReply {
    let mut logins = vec!["password".into(), "token".into()];
    if peer.certificate().is_some() {
        logins.push("certificate".into());
    }
    HelloReply {
        protocol: VERSION,
        server: SERVER_VERSION.into(),
        features: features(shared),
        logins,
        max_control: MAX_CONTROL as u64,
        max_chunk: MAX_CHUNK as u64,
        time: Timestamp::now(),
    }
}

/// The optional parts of the protocol that this server offers.
pub(crate) fn features(shared: &ServerState) -> Vec<String> {
    let mut features = vec!["deltas", "messages", "mode", "offers", "recursive", "watch"];
    if shared.datagrams.port().is_some() {
        features.insert(0, "datagrams");
    }
    features.into_iter().map(Into::into).collect()
}

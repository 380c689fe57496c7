//! `hello`: what this server is and offers.

use jiff::Timestamp;

use crate::protocol::{HelloReply, MAX_CHUNK, MAX_CONTROL, VERSION};
use crate::server::{Peer, SERVER};

/// The optional parts of the protocol that this server offers, sorted.
const FEATURES: [&str; 2] = ["messages", "offers"];

pub(super) fn answer(peer: &Peer) -> HelloReply {
    let mut logins = vec!["password".into(), "token".into()];
    if peer.certificate().is_some() {
        logins.push("certificate".into());
    }
    HelloReply {
        protocol: VERSION,
        server: SERVER.into(),
        features: FEATURES.map(str::to_owned).into(),
        logins,
        max_control: MAX_CONTROL as u64,
        max_chunk: MAX_CHUNK as u64,
        time: Timestamp::now(),
    }
}

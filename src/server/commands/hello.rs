//! `hello`: what this server is and offers.

use jiff::Timestamp;

use crate::protocol::{HelloReply, MAX_CHUNK, MAX_CONTROL, VERSION};
use crate::server::SERVER;

pub(super) fn answer() -> HelloReply {
    HelloReply {
        protocol: VERSION,
        server: SERVER.into(),
        features: Vec::new(),
        logins: vec!["password".into(), "token".into()],
        max_control: MAX_CONTROL as u64,
        max_chunk: MAX_CHUNK as u64,
        time: Timestamp::now(),
    }
}

//! `drain`: stop once running requests have ended, as on SIGTERM.

use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use crate::protocol::{Drain, DrainReply, encode_ok};
use crate::server::session::member::Member;
use crate::server::shutdown::Shutdown;
use crate::telemetry::AUDIT;

/// Begins the drain. Its reply leaves before the session is told goodbye.
pub(crate) fn drain(id: u32, drain: &Drain, member: &Member, shutdown: &Shutdown) -> Bytes {
    if let Some(seconds) = drain.seconds {
        member
            .shared
            .operator_drain_timeout(Duration::from_secs(seconds.into()));
    }
    let drain_timeout = member.shared.drain_timeout();
    let reply = DrainReply {
        sessions: member.shared.sessions.count() as u64,
        within_ms: u64::try_from(drain_timeout.as_millis()).unwrap_or(u64::MAX),
    };
    info!(name: "drain_asked", target: AUDIT, seconds = drain.seconds, "told to stop by an operator");
    shutdown.drain.cancel();
    encode_ok(id, &reply)
}

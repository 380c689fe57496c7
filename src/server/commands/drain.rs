//! `drain`: stop once what runs has ended, as on SIGTERM.

use std::time::Duration;

use bytes::Bytes;
use tracing::info;

use crate::protocol::{Call, Drain, DrainReply, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::shutdown::Shutdown;
use crate::telemetry::AUDIT;

/// Begins it. Its reply leaves before the session is told goodbye.
pub(crate) fn drain(
    id: u32,
    drain: &Drain,
    member: &Member,
    shutdown: &Shutdown,
) -> Result<Bytes, CommandError> {
    member.check_admin(Drain::CMD)?;
    if let Some(seconds) = drain.seconds {
        member
            .shared
            .operator_drain_timeout(Duration::from_secs(seconds.into()));
    }
    let patience = member.shared.drain_timeout();
    let reply = DrainReply {
        sessions: member.shared.sessions.count() as u64,
        within_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    };
    info!(name: "drain_asked", target: AUDIT, seconds = drain.seconds, "told to stop by an operator");
    shutdown.drain.cancel();
    Ok(encode_ok(id, &reply))
}

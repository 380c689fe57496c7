//! `ping`: the server's time.

use jiff::Timestamp;

use crate::protocol::{Ping, TimeReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Ping {
    async fn apply(self, _: &mut Member) -> Result<TimeReply, CommandError> {
        Ok(TimeReply {
            time: Timestamp::now(),
        })
    }
}

//! `ping`: the server's time.

use jiff::Timestamp;

use super::Command;
use crate::protocol::{Ping, TimeReply};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Ping {
    async fn apply(self, _: &mut Member) -> Result<TimeReply, CommandError> {
        Ok(TimeReply {
            time: Timestamp::now(),
        })
    }
}

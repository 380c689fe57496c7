//! `join`: hear what is said in a room.

use super::Command;
use super::say::{check_rate, room};
use crate::protocol::{Join, MembersReply};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Join {
    async fn apply(self, member: &mut Member) -> Result<MembersReply, CommandError> {
        check_rate(member)?;
        let room = room("join", "room", &self.room)?;
        Ok(member.shared.messages.join(member.party(), room).await?)
    }
}

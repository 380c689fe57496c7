//! `leave`: hear no more of a room.

use crate::protocol::{Leave, MembersReply};
use crate::server::commands::Command;
use crate::server::commands::say::{check_rate, room};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Leave {
    async fn apply(self, member: &mut Member) -> Result<MembersReply, CommandError> {
        check_rate(member)?;
        let room = room("room", &self.room)?;
        Ok(member
            .shared
            .messages
            .leave(member.user_ref(), room)
            .await?)
    }
}

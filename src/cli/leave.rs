//! `haul leave`

use clap::Args;

use crate::cli::join::members_of;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::MembersReply;

/// Leave a room: hear no more of it
///
/// Its name begins with `#`, which many shells take for a comment: write '#ops'.
#[derive(Debug, Args)]
pub(super) struct LeaveArgs {
    /// The room, such as '#ops'
    room: String,
}

impl LeaveArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let members = remote.client.leave(&self.room).await?;
        remote.output.result(&MembersReply { members }, |reply| {
            members_of(&self.room, &reply.members)
        })
    }
}

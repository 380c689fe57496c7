//! `haul leave`

use anyhow::bail;
use clap::Args;

use crate::cli::join::members_of;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{ErrorCode, MembersReply};

/// Leave a room
///
/// The name of a room begins with `#`, so it needs quotes in most shells: '#ops'.
#[derive(Debug, Args)]
pub(super) struct LeaveArgs {
    /// The room, such as '#ops'
    room: String,
}

impl LeaveArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let left = remote.client.leave(&self.room).await;
        let members = match left {
            Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Denied)) => {
                bail!("you are not in {}, so you cannot leave it", self.room)
            }
            left => left?,
        };
        remote.output.result(&MembersReply { members }, |reply| {
            members_of(&self.room, &reply.members)
        })
    }
}

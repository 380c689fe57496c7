//! `haul join`

use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::MembersReply;

/// Join a room, and create it if it does not exist
///
/// You stay in the room until you leave it, connected or not, and receive its messages from now on.
/// The name of a room begins with `#`, so it needs quotes in most shells: '#ops'.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The room, such as '#ops'
    room: String,
}

impl JoinArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let members = remote.client.join(&self.room).await?;
        remote.output.result(&MembersReply { members }, |reply| {
            members_of(&self.room, &reply.members)
        })
    }
}

/// The members of a room, in one line.
pub(super) fn members_of(room: &str, members: &[String]) -> String {
    let names: Vec<_> = members.iter().map(|name| safe(name)).collect();
    match &*names {
        [] => format!("{} has no members", safe(room)),
        names => format!("in {}: {}", safe(room), names.join(", ")),
    }
}

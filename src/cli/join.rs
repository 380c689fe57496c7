//! `haul join`

use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::MembersReply;

/// Enter a room: hear what is said in it from now on
///
/// The first one to enter makes the room. One stays in it, connected or not, until one leaves it. Its
/// name begins with `#`, which many shells take for a comment: write '#ops'.
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
        [] => format!("nobody is in {}", safe(room)),
        names => format!("in {}: {}", safe(room), names.join(", ")),
    }
}

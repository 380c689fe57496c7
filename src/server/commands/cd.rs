//! `cd`: change the current directory.

use crate::protocol::{Cd, CwdReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Cd {
    async fn apply(self, member: &mut Member) -> Result<CwdReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let entered = path.clone();
        member.with_view(move |view| view.enter(&entered)).await?;
        member.cwd = path;
        Ok(CwdReply {
            cwd: member.cwd.to_string(),
        })
    }
}

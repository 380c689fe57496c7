//! `pwd`: the current directory.

use crate::protocol::{CwdReply, Pwd};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Pwd {
    async fn apply(self, member: &mut Member) -> Result<CwdReply, CommandError> {
        Ok(CwdReply {
            cwd: member.cwd.to_string(),
        })
    }
}

//! `pwd`: the current directory.

use super::Command;
use crate::protocol::{CwdReply, Pwd};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Pwd {
    async fn apply(self, member: &mut Member) -> Result<CwdReply, CommandError> {
        Ok(CwdReply {
            cwd: member.cwd.to_string(),
        })
    }
}

//! `mv`: move or rename.

use super::Command;
use crate::protocol::{IfExists, Mv, PathReply};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Mv {
    async fn apply(self, member: &mut Member) -> Result<PathReply, CommandError> {
        let from = member.resolve(&self.from)?;
        let to = member.resolve(&self.to)?;
        let if_exists = self.if_exists.unwrap_or(IfExists::Fail);
        let path = member
            .with_counted_view(move |view| view.rename(&from, &to, if_exists))
            .await?;
        Ok(PathReply {
            path: path.to_string(),
        })
    }
}

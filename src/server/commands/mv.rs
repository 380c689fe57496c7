//! `mv`: move or rename.

use crate::protocol::{IfExists, Mv, PathReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

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

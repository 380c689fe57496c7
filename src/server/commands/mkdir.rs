//! `mkdir`: make a directory.

use crate::protocol::{Mkdir, PathReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Mkdir {
    async fn apply(self, member: &mut Member) -> Result<PathReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let made = path.clone();
        member
            .with_counted_view(move |view| view.make_dir(&made, self.parents, self.mode))
            .await?;
        Ok(PathReply {
            path: path.to_string(),
        })
    }
}

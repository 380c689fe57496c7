//! `stat`: what is known of a file or directory.

use crate::protocol::{Entry, Stat, StatReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Stat {
    async fn apply(self, member: &mut Member) -> Result<StatReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let asked = path.clone();
        let info = member.with_view(move |view| view.stat(&asked)).await?;
        Ok(StatReply {
            entry: Entry {
                name: path.name().unwrap_or("/").into(),
                kind: info.kind,
                size: info.size,
                modified: info.modified,
                mode: info.mode,
                version: info.version,
                digest: info.digest,
                unlisted: false,
                shared: false,
            },
            path: path.to_string(),
        })
    }
}

//! `ls`: list a directory, a page at a time.

use crate::protocol::{Ls, LsReply, MAX_CONTROL};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// The most entries on a page; their names may make it shorter.
const MAX_ENTRIES: u32 = 1000;

/// Bytes of a reply that are not its entries.
pub(crate) const ENVELOPE: usize = 1024;

impl Command for Ls {
    async fn apply(self, member: &mut Member) -> Result<LsReply, CommandError> {
        let path = member.resolve(self.path.as_deref().unwrap_or("."))?;
        if self.digests {
            let message = "`digests` needs `recursive`";
            return Err(CommandError::invalid_field("digests", message));
        }
        let limit = self
            .limit
            .map_or(MAX_ENTRIES, |limit| limit.get().min(MAX_ENTRIES)) as usize;
        let page = member
            .with_view(move |view| {
                view.list(&path, self.cursor.as_deref(), limit, MAX_CONTROL - ENVELOPE)
            })
            .await?;
        Ok(LsReply {
            entries: page.entries,
            cursor: page.cursor,
        })
    }
}

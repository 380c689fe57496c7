//! `df`: use and limits of the home or shared folder around the current directory.

use crate::protocol::{Df, DfReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Df {
    async fn apply(self, member: &mut Member) -> Result<DfReply, CommandError> {
        let cwd = member.cwd.clone();
        let usage = member
            .with_counted_view(move |view| view.usage(&cwd))
            .await?;
        Ok(DfReply {
            used: usage.used,
            limit: usage.limits.bytes,
            files: usage.files,
            files_limit: usage.limits.entries(),
            free: usage.free,
        })
    }
}

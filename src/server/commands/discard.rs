//! `discard`: delete a partial upload.

use crate::protocol::{Discard, Nothing};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Discard {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        member
            .shared
            .live_uploads
            .wait_for_interrupted(member.authority.id)
            .await;
        let discarded = member
            .with_view(move |view| view.discard(&self.upload))
            .await?;
        if discarded {
            Ok(Nothing {})
        } else {
            Err(CommandError::NoUpload)
        }
    }
}

//! `uploads`: the partial uploads of the user, which can be resumed.

use crate::protocol::{ReplyBudget, ResumableUpload, Uploads, UploadsReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::View;

impl Command for Uploads {
    async fn apply(self, member: &mut Member) -> Result<UploadsReply, CommandError> {
        // The upload of a connection that has just ended may be becoming a partial upload now.
        member
            .shared
            .live_uploads
            .wait_for_interrupted(member.authority.id)
            .await;
        let partial = member.with_view(View::uploads).await?;
        Ok(reply(partial.into_iter().map(|upload| ResumableUpload {
            upload: upload.id,
            path: upload.path.to_string(),
            size: upload.size,
            offset: upload.offset,
            expires: upload.expires,
        })))
    }
}

/// The reply with as many uploads as fit in a frame.
pub(crate) fn reply(uploads: impl Iterator<Item = ResumableUpload>) -> UploadsReply {
    let mut reply = UploadsReply {
        uploads: Vec::new(),
        more: false,
    };
    let mut budget = ReplyBudget::after(&reply);
    (reply.uploads, reply.more) = budget.fill(uploads);
    reply
}

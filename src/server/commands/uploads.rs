//! `uploads`: what was cut off and can be resumed.

use super::Command;
use crate::protocol::{MAX_CONTROL, ResumableUpload, Uploads, UploadsReply};
use crate::server::CommandError;
use crate::server::member::Member;
use crate::storage::View;

/// Bytes of a reply beside the uploads in it.
const ENVELOPE: usize = 256;

impl Command for Uploads {
    async fn apply(self, member: &mut Member) -> Result<UploadsReply, CommandError> {
        // Who was just cut off asks for what is being kept this moment.
        member.shared.puts.settle(member.account.id).await;
        let kept = member.with_view(View::uploads).await?;
        let mut reply = UploadsReply {
            uploads: Vec::with_capacity(kept.len()),
            more: false,
        };
        let mut room = MAX_CONTROL - ENVELOPE;
        for upload in kept {
            let upload = ResumableUpload {
                upload: upload.id,
                path: upload.path.to_string(),
                size: upload.size,
                offset: upload.offset,
                expires: upload.expires,
            };
            // With the comma.
            let needed = serde_json::to_vec(&upload).map_or(usize::MAX, |json| json.len() + 1);
            if needed > room {
                reply.more = true;
                break;
            }
            room -= needed;
            reply.uploads.push(upload);
        }
        Ok(reply)
    }
}

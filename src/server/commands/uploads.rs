//! `uploads`: what was cut off and can be resumed.

use super::Command;
use crate::protocol::{MAX_CONTROL, ResumableUpload, Uploads, UploadsReply};
use crate::server::CommandError;
use crate::server::member::Member;

/// Bytes of a reply beside the uploads in it.
const ENVELOPE: usize = 256;

/// Bytes of JSON for one upload beside its path: names, numbers and a time.
const FIELDS: usize = 256;

impl Command for Uploads {
    async fn apply(self, member: &mut Member) -> Result<UploadsReply, CommandError> {
        // Who was just cut off asks for what is being kept this moment.
        member.shared.puts.settle(member.account.id).await;
        let kept = member.with_view(|view| Ok(view.uploads())).await?;
        let mut room = MAX_CONTROL - ENVELOPE;
        let fitting = kept.into_iter().take_while(|upload| {
            // In JSON a character is at most twice as long: none of a path is a control character.
            let needed = FIELDS + 2 * upload.path.as_str().len();
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        });
        let uploads = fitting.map(|upload| ResumableUpload {
            upload: upload.id,
            path: upload.path.to_string(),
            size: upload.size,
            offset: upload.offset,
            expires: upload.expires,
        });
        Ok(UploadsReply {
            uploads: uploads.collect(),
        })
    }
}

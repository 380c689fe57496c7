//! `folders`: the shared folders with their members.

use std::num::NonZeroU32;

use crate::accounts::{Folder, FolderMember, FolderName};
use crate::protocol::{FolderEntry, FolderMemberEntry, Folders, FoldersReply, ReplyBudget};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// The most folders on a page; their members may make it shorter.
const MAX_FOLDERS_PER_PAGE: u32 = 500;

impl Command for Folders {
    async fn apply(self, member: &mut Member) -> Result<FoldersReply, CommandError> {
        let folders = member.shared.accounts.folders().await?;
        let after = self.cursor.as_deref().map(parse_cursor).transpose()?;
        let entries = folders
            .iter()
            .filter(|folder| after.as_ref().is_none_or(|after| folder.name > *after))
            .map(entry);
        let max = self.limit.map_or(MAX_FOLDERS_PER_PAGE, NonZeroU32::get);
        Ok(page(entries, max.min(MAX_FOLDERS_PER_PAGE) as usize))
    }
}

/// As many folders as fit in a frame, and at most `max`. A folder with more members than fit is
/// alone on its page.
pub(crate) fn page(entries: impl Iterator<Item = FolderEntry>, max: usize) -> FoldersReply {
    let mut reply = FoldersReply {
        folders: Vec::new(),
        cursor: None,
    };
    let mut budget = ReplyBudget::after(&reply);
    for mut entry in entries {
        if reply.folders.len() == max || !budget.try_add(&entry) {
            if let Some(last) = reply.folders.last() {
                reply.cursor = Some(last.folder.clone());
                break;
            }
            let members = std::mem::take(&mut entry.members);
            budget.try_add(&entry);
            (entry.members, entry.more) = budget.fill(members);
        }
        reply.folders.push(entry);
    }
    reply
}

fn entry(folder: &Folder) -> FolderEntry {
    let member = |member: &FolderMember| FolderMemberEntry {
        user: member.user.to_string(),
        rights: member.rights.names(),
    };
    FolderEntry {
        folder: folder.name.to_string(),
        limit: folder.limits.bytes,
        files_limit: folder.limits.files,
        created: folder.created,
        members: folder.members.iter().map(member).collect(),
        more: false,
    }
}

fn parse_cursor(cursor: &str) -> Result<FolderName, CommandError> {
    let message = "`folders` has not returned this cursor";
    cursor
        .parse()
        .map_err(|_| CommandError::invalid_field("cursor", message))
}

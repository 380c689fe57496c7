//! `users`: who has an account, with what they use and may.

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::accounts::{Folder, User, UserName};
use crate::protocol::{FolderView, ReplyBudget, UserEntry, Users, UsersReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

/// Users on a page at most; their folders may make it shorter.
const MAX_USERS: u32 = 500;

impl Command for Users {
    async fn apply(self, member: &mut Member) -> Result<UsersReply, CommandError> {
        let accounts = &member.shared.accounts;
        let (users, folders) = (accounts.users().await?, accounts.folders().await?);
        let mut folders = by_user(&folders);
        let sessions = member.shared.sessions.count_by_user();
        let limit = self.limit.map_or(MAX_USERS, NonZeroU32::get);
        let limit = limit.min(MAX_USERS) as usize;
        let after = self.cursor.as_deref().map(parse_cursor).transpose()?;
        let rest = users
            .iter()
            .filter(|user| after.as_ref().is_none_or(|after| user.name > *after));
        let entries = rest.map(|user| {
            let name = user.name.as_str();
            let counted = member.shared.store.counted_home(name);
            UserEntry {
                sessions: sessions.get(name).copied().unwrap_or_default(),
                used: counted.map(|(bytes, _)| bytes),
                files: counted.map(|(_, files)| files),
                folders: folders.remove(name).unwrap_or_default(),
                ..entry(user)
            }
        });
        Ok(page(entries, limit))
    }
}

fn parse_cursor(cursor: &str) -> Result<UserName, CommandError> {
    let message = "`users` has not returned this cursor";
    cursor
        .parse()
        .map_err(|_| CommandError::invalid_field("cursor", message))
}

/// A page with at most `limit` users, as many as fit in a frame.
pub(crate) fn page(entries: impl Iterator<Item = UserEntry>, limit: usize) -> UsersReply {
    let mut reply = UsersReply {
        users: Vec::new(),
        cursor: None,
    };
    let mut budget = ReplyBudget::after(&reply);
    for mut entry in entries {
        let is_full = reply.users.len() == limit;
        if is_full || !budget.try_add(&entry) {
            if let Some(last) = reply.users.last() {
                reply.cursor = Some(last.user.clone());
                break;
            }
            // Nobody is left out for seeing too many folders.
            let all = std::mem::take(&mut entry.folders);
            budget.try_add(&entry);
            (entry.folders, entry.more) = budget.fill(all);
        }
        reply.users.push(entry);
    }
    reply
}

fn entry(user: &User) -> UserEntry {
    UserEntry {
        user: user.name.to_string(),
        admin: user.admin,
        disabled: user.disabled,
        sessions: 0,
        used: None,
        limit: user.limits.bytes,
        files: None,
        files_limit: user.limits.files,
        created: user.created,
        folders: Vec::new(),
        more: false,
    }
}

fn by_user(folders: &[Folder]) -> HashMap<String, Vec<FolderView>> {
    let mut of: HashMap<_, Vec<_>> = HashMap::new();
    for folder in folders {
        for member in &folder.members {
            let view = FolderView {
                name: folder.name.to_string(),
                rights: member.rights.names(),
            };
            of.entry(member.user.to_string()).or_default().push(view);
        }
    }
    of
}

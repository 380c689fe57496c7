//! `users`: who has an account, with what they use and may.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::Command;
use crate::accounts::{Folder, User};
use crate::protocol::{FolderView, MAX_CONTROL, UserEntry, Users, UsersReply};
use crate::server::CommandError;
use crate::server::member::Member;

/// The most users on a page; their folders may make it shorter.
const MAX_USERS: u32 = 500;

/// Bytes of a reply beside the users in it.
const ENVELOPE: usize = 256;

impl Command for Users {
    async fn apply(self, member: &mut Member) -> Result<UsersReply, CommandError> {
        member.check_admin("users")?;
        let accounts = &member.shared.accounts;
        let (users, folders) = (accounts.users().await?, accounts.folders().await?);
        let mut folders = by_user(&folders);
        let sessions = member.shared.sessions.count_by_user();
        let most = self.limit.map_or(MAX_USERS, NonZeroU32::get);
        let most = most.min(MAX_USERS) as usize;
        let mut reply = UsersReply {
            users: Vec::new(),
            cursor: None,
        };
        let mut room = MAX_CONTROL - ENVELOPE;
        let after = self.cursor.as_deref();
        let rest = users
            .iter()
            .filter(|user| after.is_none_or(|after| user.name.as_str() > after));
        for user in rest {
            let name = user.name.as_str();
            let counted = member.shared.store.counted_home(name);
            let mut entry = UserEntry {
                sessions: sessions.get(name).copied().unwrap_or_default(),
                used: counted.map(|(bytes, _)| bytes),
                files: counted.map(|(_, files)| files),
                folders: folders.remove(name).unwrap_or_default(),
                ..entry(user)
            };
            // With the comma.
            let length =
                |entry: &UserEntry| serde_json::to_vec(entry).map_or(0, |json| json.len() + 1);
            let mut needed = length(&entry);
            // Nobody is left out for seeing too many folders.
            while needed > room && reply.users.is_empty() && entry.folders.pop().is_some() {
                needed = length(&entry);
            }
            if needed > room || reply.users.len() == most {
                reply.cursor = reply.users.last().map(|last| last.user.clone());
                break;
            }
            room -= needed;
            reply.users.push(entry);
        }
        Ok(reply)
    }
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

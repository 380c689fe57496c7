//! `whoami`: who this session is.

use crate::protocol::{FolderView, QuotaReply, ReplyBudget, Whoami, WhoamiReply};
use crate::server::commands::Command;
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Whoami {
    async fn apply(self, member: &mut Member) -> Result<WhoamiReply, CommandError> {
        let account = member.authority.account()?;
        let folders = account.folders.iter().map(|grant| FolderView {
            name: grant.name.to_string(),
            rights: grant.rights.names(),
        });
        let reply = WhoamiReply {
            user: account.name.to_string(),
            admin: account.admin,
            cwd: member.cwd.to_string(),
            folders: Vec::new(),
            more: false,
            quota: QuotaReply {
                limit: account.limits.bytes,
                files_limit: account.limits.files,
            },
            session: member.session.to_string(),
        };
        Ok(with_folders(reply, folders))
    }
}

/// The reply with as many folders as fit in a frame.
pub(crate) fn with_folders(
    mut reply: WhoamiReply,
    folders: impl Iterator<Item = FolderView>,
) -> WhoamiReply {
    let mut budget = ReplyBudget::after(&reply);
    (reply.folders, reply.more) = budget.fill(folders);
    reply
}

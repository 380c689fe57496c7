//! `sessions`: who is there, and what each has under way.

use std::num::NonZeroU32;

use super::Command;
use crate::protocol::{BadRequest, MAX_CONTROL, SessionEntry, Sessions, SessionsReply};
use crate::server::CommandError;
use crate::server::member::Member;

/// The most sessions on a page; what they have under way may make it shorter.
const MAX_SESSIONS: u32 = 500;

/// Bytes of a reply beside the sessions in it.
const ENVELOPE: usize = 256;

impl Command for Sessions {
    async fn apply(self, member: &mut Member) -> Result<SessionsReply, CommandError> {
        member.check_admin("sessions")?;
        let after = self.cursor.as_deref().map(number).transpose()?;
        let most = self.limit.map_or(MAX_SESSIONS, NonZeroU32::get);
        let most = most.min(MAX_SESSIONS) as usize;
        let mut reply = SessionsReply {
            sessions: Vec::new(),
            cursor: None,
        };
        let mut room = MAX_CONTROL - ENVELOPE;
        let mut last = after;
        // One more than fits, to know whether there is one.
        for (number, mut entry) in member.shared.sessions.entries(after, most + 1) {
            // With the comma.
            let length =
                |entry: &SessionEntry| serde_json::to_vec(entry).map_or(0, |json| json.len() + 1);
            let mut needed = length(&entry);
            // Even one with the longest of paths is told of; `running` says how many there are.
            while needed > room && reply.sessions.is_empty() && entry.transfers.pop().is_some() {
                needed = length(&entry);
            }
            if needed > room || reply.sessions.len() == most {
                reply.cursor = last.map(|last| last.to_string());
                break;
            }
            room -= needed;
            last = Some(number);
            reply.sessions.push(entry);
        }
        Ok(reply)
    }
}

fn number(cursor: &str) -> Result<u64, BadRequest> {
    let message = "this is no cursor that `sessions` has answered";
    cursor
        .parse()
        .map_err(|_| BadRequest::of_field(0, "sessions", "cursor", message))
}

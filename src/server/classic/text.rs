//! The texts of `res`, for people.

use std::fmt::Write as _;

use bytesize::ByteSize;
use data_encoding::HEXLOWER;
use serde_json::Value;

use crate::protocol::{DfReply, Digest, Entry, ErrorCode, Kind, PutReply, RmReply, WireError};

/// `text` with all control sequences for terminals escaped, because classic clients print it.
pub(crate) fn escape_for_terminal(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters, line separators, and characters that change the direction of a text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

pub(crate) fn failure(error: &WireError) -> String {
    match error.code {
        ErrorCode::NotLoggedIn => "log in first: login USER PASSWORD".into(),
        ErrorCode::Unsupported => "this server does not offer that".into(),
        _ => escape_for_terminal(&error.message),
    }
}

pub(crate) fn stored(reply: &PutReply) -> String {
    let (path, hash) = (escape_for_terminal(&reply.path), hex(&reply.digest));
    format!("stored {path}, {} bytes, MD5 {hash}", reply.size)
}

pub(crate) fn not_stored(error: &WireError) -> String {
    match error.code {
        // Partial uploads of other clients cannot be resumed here.
        ErrorCode::TimedOut => "not stored: no data arrived for too long".into(),
        _ => format!("not stored: {}", failure(error)),
    }
}

pub(crate) fn removed(reply: RmReply) -> String {
    match reply {
        RmReply {
            removed: 1,
            left: 0,
        } => "removed".into(),
        RmReply { removed, left: 0 } => format!("removed {removed} files and directories"),
        RmReply { removed, left } => format!(
            "removed {removed} files and directories; the server could not delete {left} more, \
             and tries again"
        ),
    }
}

pub(crate) fn usage(reply: DfReply) -> String {
    let size = |bytes| ByteSize::b(bytes).to_string();
    let mut text = size(reply.used);
    if let Some(limit) = reply.limit {
        let _ = write!(text, " of {}", size(limit));
    }
    let _ = write!(text, " used, {}", reply.files);
    if let Some(limit) = reply.files_limit {
        let _ = write!(text, " of {limit}");
    }
    let _ = write!(
        text,
        " files and directories; {} free on the disk",
        size(reply.free)
    );
    text
}

/// The hex digits of a digest, without its algorithm.
pub(crate) fn hex(digest: &Digest) -> String {
    HEXLOWER.encode(digest.as_bytes())
}

/// Adds a line: the size, or that it is a directory, and the name.
pub(crate) fn add_entry(listing: &mut String, entry: &Entry) {
    let name = escape_for_terminal(&entry.name);
    let _ = match entry.kind {
        Kind::Dir => writeln!(listing, "{:>14}  {name}/", "<dir>"),
        Kind::File => writeln!(listing, "{:>14}  {name}", entry.size),
    };
}

/// A complete listing.
pub(crate) fn finish_listing(mut listing: String) -> String {
    match listing.pop() {
        Some(_) => listing,
        None => "the directory is empty".into(),
    }
}

/// The connected users.
pub(crate) fn users(reply: &Value) -> String {
    let users = reply["users"].as_array().map_or(&[][..], Vec::as_slice);
    let lines: Vec<_> = users
        .iter()
        .map(|user| {
            let name = escape_for_terminal(user["user"].as_str().unwrap_or("?"));
            let mut line = name;
            if let Some(sessions @ 2..) = user["sessions"].as_u64() {
                let _ = write!(line, ", {sessions} sessions");
            }
            if let Some(since) = user["since"].as_str() {
                let _ = write!(line, ", since {}", escape_for_terminal(since));
            }
            line
        })
        .collect();
    if lines.is_empty() {
        return "nobody".into();
    }
    lines.join("\n")
}

/// The outcome of a message.
pub(crate) fn history(reply: &Value) -> String {
    match reply["delivered"].as_u64() {
        Some(0) => "kept until they log in".into(),
        _ => "delivered".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_name_or_a_message_drives_a_terminal() {
        assert_eq!(
            escape_for_terminal("a\u{1b}[2J\r\n\u{202e}\u{9b}年"),
            "a\\u{1b}[2J\\r\\n\\u{202e}\\u{9b}年"
        );
        let error = WireError::new(ErrorCode::NotFound, "no such file: \u{7}");
        assert_eq!(failure(&error), "no such file: \\u{7}");
    }

    #[test]
    fn usage_is_shown_with_its_limits_if_there_are_any() {
        let mut df = DfReply {
            used: 3 << 20,
            limit: None,
            files: 7,
            files_limit: None,
            free: 5 << 30,
        };
        assert_eq!(
            usage(df),
            "3.0 MiB used, 7 files and directories; 5.0 GiB free on the disk"
        );
        (df.limit, df.files_limit) = (Some(1 << 30), Some(100));
        assert_eq!(
            usage(df),
            "3.0 MiB of 1.0 GiB used, 7 of 100 files and directories; 5.0 GiB free on the disk"
        );
    }

    #[test]
    fn users_and_messages_are_told_from_whatever_the_reply_holds() {
        let reply = json!({"users": [
            {"user": "alice", "sessions": 2, "since": "2026-03-01T12:00:00Z"},
            {"user": "bob", "sessions": 1}, {},
        ]});
        let text = "alice, 2 sessions, since 2026-03-01T12:00:00Z\nbob\n?";
        assert_eq!(users(&reply), text);
        assert_eq!(users(&json!({})), "nobody");
        assert_eq!(
            history(&json!({"seq": 1, "delivered": 0})),
            "kept until they log in"
        );
        assert_eq!(history(&json!({"seq": 1, "delivered": 2})), "delivered");
        assert_eq!(history(&json!({})), "delivered");
    }
}

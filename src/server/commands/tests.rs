//! No reply outgrows its frame.

use jiff::Timestamp;
use serde::Serialize;

use crate::accounts::MAX_LABEL_CHARS;
use crate::protocol::{
    Algorithm, ChunksReply, CwdReply, DfReply, Digest, DrainReply, Entry, ErrorCode, Event,
    FileMode, FolderEntry, FolderMemberEntry, FolderView, GetReply, HashReply, Hasher, HelloReply,
    HelpReply, HistoryReply, KickReply, Kind, LogLevelReply, LoginReply, LogsReply, LsReply,
    MAX_CONTROL, MAX_NUMBER, MAX_TEXT, MembersReply, Message, Offer, OffersReply, PathReply,
    Present, PutReply, QuotaReply, ReloadReply, RemovedReply, ResumableUpload, RmReply, SayReply,
    Secret, SendReply, SessionDialect, SessionEntry, SetStatReply, SettingChange, StatReply,
    TicketReply, TimeReply, TokenAddReply, TokenEntry, TransferEntry, UserEntry, WatchReply,
    WhoReply, WhoamiReply, WireError, encode_error, encode_event,
};
use crate::server::commands::*;

/// A name of a user, a room or a folder that is as long as it may be.
fn name() -> String {
    "x".repeat(32)
}

/// A name of a file, and a path, that JSON makes as long as it can.
fn file() -> String {
    "\"".repeat(255)
}

fn path() -> String {
    "\"".repeat(4096)
}

fn time() -> Timestamp {
    "2026-11-30T21:56:16.123456789Z".parse().expect("a time")
}

fn digest() -> Digest {
    Hasher::new(Algorithm::Sha256).finish()
}

fn hex(digits: usize) -> String {
    "f".repeat(digits)
}

fn folder() -> FolderView {
    let rights = ["list", "read", "write", "overwrite", "delete"];
    FolderView {
        name: name(),
        rights: rights.map(str::to_owned).into(),
    }
}

/// Endlessly many of one.
fn many<T: Clone>(one: T) -> impl Iterator<Item = T> {
    std::iter::repeat(one)
}

/// As many as take up `budget` bytes of JSON, as those who make lists of a budget do.
fn worth<T: Serialize + Clone>(budget: usize, one: &T) -> Vec<T> {
    let length = serde_json::to_vec(one).expect("JSON").len() + 1;
    vec![one.clone(); budget / length]
}

fn transfer() -> TransferEntry {
    TransferEntry {
        id: u32::MAX,
        cmd: "logs".into(),
        path: path(),
        size: Some(MAX_NUMBER),
        offset: MAX_NUMBER,
        moved: MAX_NUMBER,
        rate: MAX_NUMBER,
        since: time(),
    }
}

fn session() -> SessionEntry {
    SessionEntry {
        session: hex(16),
        user: name(),
        peer: "x".repeat(60),
        secure: false,
        dialect: SessionDialect::Classic,
        since: time(),
        running: u32::MAX,
        transfers: vec![transfer(); 8],
    }
}

fn user(folders: usize) -> UserEntry {
    UserEntry {
        user: name(),
        admin: false,
        disabled: false,
        sessions: MAX_NUMBER,
        used: Some(MAX_NUMBER),
        limit: Some(MAX_NUMBER),
        files: Some(MAX_NUMBER),
        files_limit: Some(MAX_NUMBER),
        created: time(),
        folders: vec![folder(); folders],
        more: false,
    }
}

fn shared_folder(members: usize) -> FolderEntry {
    let FolderView { name, rights } = folder();
    let member = FolderMemberEntry {
        user: name.clone(),
        rights,
    };
    FolderEntry {
        folder: name,
        limit: Some(MAX_NUMBER),
        files_limit: Some(MAX_NUMBER),
        created: time(),
        members: vec![member; members],
        more: false,
    }
}

fn token() -> TokenEntry {
    TokenEntry {
        number: MAX_NUMBER,
        label: "\"".repeat(MAX_LABEL_CHARS),
        created: time(),
        expires: Some(time()),
        current: true,
    }
}

fn message() -> Message {
    Message {
        seq: MAX_NUMBER,
        from: name(),
        to: name(),
        // Each is six bytes of JSON.
        text: "\u{1}".repeat(MAX_TEXT),
        time: time(),
    }
}

fn offer() -> Offer {
    Offer {
        seq: MAX_NUMBER,
        from: name(),
        to: Some(name()),
        path: path(),
        size: MAX_NUMBER,
        offer: hex(32),
        expires: time(),
    }
}

fn whoami() -> WhoamiReply {
    WhoamiReply {
        user: name(),
        admin: false,
        cwd: path(),
        folders: Vec::new(),
        more: false,
        quota: QuotaReply {
            limit: Some(MAX_NUMBER),
            files_limit: Some(MAX_NUMBER),
        },
        session: hex(16),
    }
}

fn setting() -> SettingChange {
    SettingChange {
        setting: "limits.frame_timeout_before_login".into(),
        from: path(),
        to: path(),
    }
}

fn entry() -> Entry {
    Entry {
        name: file(),
        kind: Kind::File,
        size: MAX_NUMBER,
        modified: time(),
        mode: Some(FileMode::from_st_mode(0o777)),
        version: None,
        digest: None,
        unlisted: false,
        shared: false,
    }
}

/// The largest replies that a command can give.
fn largest(cmd: &str) -> Vec<Bytes> {
    let known = of_sessions(cmd)
        .or_else(|| of_files(cmd))
        .or_else(|| of_messages(cmd))
        .or_else(|| of_admins(cmd));
    known.unwrap_or_else(|| panic!("the largest reply to `{cmd}` is not known here"))
}

fn reply<T: Serialize>(ok: &T) -> Vec<Bytes> {
    vec![encode_ok(u32::MAX, ok)]
}

/// Those of commands about the session and what lies in a directory.
fn of_sessions(cmd: &str) -> Option<Vec<Bytes>> {
    Some(match cmd {
        "hello" => reply(&HelloReply {
            protocol: 1,
            server: "x".repeat(64),
            features: vec!["x".repeat(32); 32],
            logins: vec!["x".repeat(32); 8],
            max_control: MAX_NUMBER,
            max_chunk: MAX_NUMBER,
            time: time(),
        }),
        "login" => reply(&LoginReply {
            user: name(),
            home: path(),
            server: "x".repeat(64),
            session: hex(16),
            epoch: Some(hex(16)),
            resumed: Some(false),
            features: vec!["x".repeat(32); 32],
        }),
        "whoami" => reply(&whoami::with_folders(whoami(), many(folder()))),
        "passwd" | "token_remove" | "user_add" | "user_set" | "user_passwd" | "folder_add"
        | "folder_grant" | "folder_revoke" | "quit" | "end" | "copy" | "cancel" | "discard"
        | "decline" | "unwatch" => reply(&Nothing {}),
        "ping" => reply(&TimeReply { time: time() }),
        "help" => reply(&HelpReply {
            commands: Request::help(),
        }),
        "pwd" | "cd" => reply(&CwdReply { cwd: path() }),
        "ls" => reply(&LsReply {
            entries: worth(MAX_CONTROL - ls::ENVELOPE, &entry()),
            cursor: Some(file()),
        }),
        "stat" => reply(&StatReply {
            path: path(),
            entry: Entry {
                version: Some(hex(64)),
                digest: Some(digest()),
                ..entry()
            },
        }),
        _ => return None,
    })
}

/// Those of commands about files.
fn of_files(cmd: &str) -> Option<Vec<Bytes>> {
    Some(match cmd {
        "mkdir" | "mv" | "cp" | "accept" => reply(&PathReply { path: path() }),
        "setstat" => reply(&SetStatReply {
            path: path(),
            modified: Some(time()),
            mode: Some(FileMode::from_st_mode(0o777)),
        }),
        "rm" => reply(&RmReply {
            removed: MAX_NUMBER,
            left: MAX_NUMBER,
        }),
        "get" => reply(&GetReply {
            size: MAX_NUMBER,
            digest: Some(digest()),
        }),
        "put" => reply(&PutReply {
            path: path(),
            size: MAX_NUMBER,
            digest: digest(),
            version: hex(64),
        }),
        "uploads" => reply(&uploads::reply(many(ResumableUpload {
            upload: hex(32),
            path: path(),
            size: Some(MAX_NUMBER),
            offset: MAX_NUMBER,
            expires: time(),
        }))),
        "hash" => reply(&HashReply {
            digest: digest(),
            size: MAX_NUMBER,
        }),
        "chunks" => reply(&ChunksReply {
            count: MAX_NUMBER,
            size: MAX_NUMBER,
            version: hex(64),
        }),
        "df" => reply(&DfReply {
            used: MAX_NUMBER,
            limit: Some(MAX_NUMBER),
            files: MAX_NUMBER,
            files_limit: Some(MAX_NUMBER),
            free: MAX_NUMBER,
        }),
        _ => return None,
    })
}

/// Those of commands about messages, and the events that belong to them.
fn of_messages(cmd: &str) -> Option<Vec<Bytes>> {
    Some(match cmd {
        "who" => reply(&WhoReply {
            users: worth(
                who::BUDGET,
                &Present {
                    user: name(),
                    sessions: u32::MAX,
                    since: time(),
                },
            ),
            more: true,
        }),
        "say" => reply(&SayReply {
            seq: MAX_NUMBER,
            delivered: u32::MAX,
        }),
        "history" => vec![
            encode_ok(
                u32::MAX,
                &HistoryReply {
                    messages: worth(history::BUDGET, &message()),
                    more: true,
                },
            ),
            encode_event(&Event::Message(message())),
        ],
        "join" | "leave" => reply(&MembersReply {
            members: vec![name(); 1000],
        }),
        "send" => reply(&SendReply { offer: hex(32) }),
        "offers" => vec![
            encode_ok(
                u32::MAX,
                &OffersReply {
                    offers: worth(offers::BUDGET, &offer()),
                    more: true,
                },
            ),
            encode_event(&Event::Offer(offer())),
        ],
        "watch" => reply(&WatchReply {
            watch: u32::MAX,
            seq: MAX_NUMBER,
        }),
        "ticket" => reply(&TicketReply {
            ticket: "x".repeat(64),
            secret: Secret::new(hex(64)),
            expires: time(),
            port: u16::MAX,
        }),
        _ => return None,
    })
}

/// Those of commands for admins.
fn of_admins(cmd: &str) -> Option<Vec<Bytes>> {
    Some(match cmd {
        "sessions" => {
            let few = |transfers| SessionEntry {
                transfers: vec![transfer(); transfers],
                ..session()
            };
            let page = |entry| sessions::page(many(entry).zip(1..).map(|(e, n)| (n, e)), 500);
            [0, 1, 8]
                .map(|transfers| encode_ok(u32::MAX, &page(few(transfers))))
                .into()
        }
        "tokens" => vec![encode_ok(u32::MAX, &tokens::page(many(token()), 500))],
        "token_add" => reply(&TokenAddReply {
            token: Secret::new("x".repeat(57)),
            number: MAX_NUMBER,
            expires: Some(time()),
        }),
        "user_remove" | "folder_remove" => reply(&RemovedReply { had_files: false }),
        "folders" => [0, 1, 10, 5000]
            .map(|members| encode_ok(u32::MAX, &folders::page(many(shared_folder(members)), 500)))
            .into(),
        "users" => [0, 1, 10, 5000]
            .map(|folders| encode_ok(u32::MAX, &users::page(many(user(folders)), 500)))
            .into(),
        "kick" => reply(&KickReply { kicked: MAX_NUMBER }),
        "reload" => reply(&reload::fitting(ReloadReply {
            changed: vec![setting(); 100],
            needs_restart: vec![setting(); 100],
            more: false,
            refused: Some(path()),
            certificate_refused: Some(path()),
        })),
        "drain" => reply(&DrainReply {
            sessions: MAX_NUMBER,
            within_ms: MAX_NUMBER,
        }),
        "log_level" => reply(&LogLevelReply {
            level: path(),
            setting: path(),
        }),
        "logs" => reply(&LogsReply {
            lines: MAX_NUMBER,
            missed: MAX_NUMBER,
        }),
        _ => return None,
    })
}

#[test]
fn the_largest_reply_of_every_command_fits_in_a_frame() {
    for cmd in Request::COMMANDS.iter().map(|command| command.name) {
        for json in largest(cmd) {
            // One that does not fit is an error instead.
            let text = String::from_utf8_lossy(&json);
            assert!(!text.contains("does not fit"), "{cmd}");
            assert!(json.len() <= MAX_CONTROL, "{cmd}: {} bytes", json.len());
        }
    }
}

#[test]
fn a_list_that_is_cut_says_so_and_fills_the_frame() {
    let all = whoami::with_folders(whoami(), many(folder()).take(100));
    assert!(all.folders.len() == 100 && !all.more);
    let cut = whoami::with_folders(whoami(), many(folder()));
    assert!(cut.more);
    let length = encode_ok(u32::MAX, &cut).len();
    assert!(length > MAX_CONTROL - 512, "{length} bytes");
    let page = users::page(many(user(5000)).take(2), 500);
    assert!(page.users.len() == 1 && page.users[0].more && page.cursor.is_some());
}

#[test]
fn an_error_keeps_its_code_however_long_its_texts_are() {
    for text in ["x", "\u{1}", "\u{200b}", "\""] {
        let mut error = WireError::new(ErrorCode::NotFound, text.repeat(200_000));
        error.field = Some(text.repeat(200_000));
        let json = encode_error(u32::MAX, &error);
        assert!(json.len() <= MAX_CONTROL);
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["error"]["code"], "not_found");
    }
    let long = CommandError::invalid_field("to", "x".repeat(100_000));
    let error = WireError::from(&long);
    let json = String::from_utf8_lossy(&encode_error(7, &error)).into_owned();
    assert!(json.contains("bad_request"), "{json:.200}");
}

//! Requests: every command a client can send, with its fields and the reply it gets.
//!
//! A request is one JSON object: `{"id":2,"cmd":"cd","path":"reports"}`. It is parsed into the
//! struct of its command in one pass, so that a duplicate, unknown, missing or ill-typed field is
//! refused by name and nothing is silently dropped.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::accounts::{
    FolderAdd, FolderGrant, FolderRemove, FolderRevoke, Folders, FoldersReply, RemovedReply,
    TokenAdd, TokenAddReply, TokenRemove, Tokens, TokensReply, UserAdd, UserPasswd, UserRemove,
    UserSet,
};
use crate::protocol::admin::{
    Drain, DrainReply, Kick, KickReply, LogLevelReply, Logs, LogsReply, ReloadReply,
    ReloadSettings, Sessions, SessionsReply, SetLogLevel, Users, UsersReply,
};
use crate::protocol::delta::{Chunks, ChunksReply, CopyRange};
use crate::protocol::files::{Cd, Cp, Df, Hash, Ls, Mkdir, Mv, Pwd, Rm, SetStat, Stat};
use crate::protocol::live::{
    Accept, Decline, History, HistoryReply, Join, Leave, MembersReply, Offers, OffersReply, Say,
    SayReply, SendReply, SendTo, Ticket, TicketReply, Unwatch, Watch, WatchReply, Who, WhoReply,
};
use crate::protocol::parse::{BadRequest, IdAndCmd, RequestHead, unknown_command};
use crate::protocol::reply::{
    CwdReply, DfReply, GetReply, HashReply, HelloReply, HelpReply, LoginReply, LsReply, Nothing,
    PathReply, PutReply, RmReply, SetStatReply, StatReply, TimeReply, UploadsReply, WhoamiReply,
};
use crate::protocol::session::{Hello, Help, Login, Passwd, Ping, Quit, Whoami};
use crate::protocol::transfer::{Cancel, Discard, End, Get, Put, Uploads};
use crate::protocol::{CommandHelp, CommandInfo};

/// A request with the type of its reply.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// The command's row in the table of commands.
    const COMMAND: CommandInfo;
    /// The command's name on the wire.
    const CMD: &'static str = Self::COMMAND.name;
    /// The content of `ok`.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// Declares every command once: its name, its request and reply structs, its properties (the
/// builder methods of [`CommandInfo`]) and its line of help. The server enforces the properties before
/// a command runs, so a command makes none of these checks itself.
macro_rules! requests {
    ($($cmd:literal $request:ident -> $reply:ident, [$($property:ident)*], $fields:literal, $summary:literal;)*) => {
        /// A parsed request, one variant a command.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the struct of its name")]
        pub enum Request {
            $($request($request),)*
        }

        impl Request {
            /// Parses a control payload that came from a client.
            ///
            /// # Errors
            /// [`BadRequest`], with the request's id where it could be read, if the payload is not
            /// one JSON object with a known `cmd` and exactly its fields, each within its range.
            pub fn parse(json: &[u8]) -> Result<(u32, Self), BadRequest> {
                let head = Self::parse_head(json)?;
                Ok((head.id, Self::parse_fields(head)?))
            }

            /// Reads the id and the command of a control payload, and none of its other fields.
            ///
            /// # Errors
            /// [`BadRequest`], with the request's id where it could be read, if the payload is not
            /// one JSON object with a known `cmd`.
            pub fn parse_head(json: &[u8]) -> Result<RequestHead<'_>, BadRequest> {
                let read = IdAndCmd::parse(json)?;
                let command = match &*read.cmd {
                    $($cmd => const { &$request::COMMAND },)*
                    cmd => return Err(unknown_command(read.id, cmd)),
                };
                Ok(RequestHead { id: read.id, command, json })
            }

            /// Reads the fields of the command.
            ///
            /// # Errors
            /// [`BadRequest`] if the fields are not exactly those of the command, each within its
            /// range.
            pub fn parse_fields(head: RequestHead<'_>) -> Result<Self, BadRequest> {
                Ok(match head.command.name {
                    $($cmd => Self::$request(head.fields($cmd)?),)*
                    cmd => return Err(unknown_command(head.id, cmd)),
                })
            }

            /// The command's row in the table of commands.
            #[must_use]
            pub fn command(&self) -> &'static CommandInfo {
                match self {
                    $(Self::$request(_) => const { &$request::COMMAND },)*
                }
            }

            /// All commands, in the order of the documentation.
            pub const COMMANDS: &[CommandInfo] = &[$($request::COMMAND,)*];
        }

        $(impl Call for $request {
            const COMMAND: CommandInfo =
                CommandInfo::new($cmd, $fields, $summary)$(.$property())*;
            type Reply = $reply;
        })*
    };
}

requests! {
    "hello" Hello -> HelloReply, [before_login unchecked auxiliary],
        "", "describe this server; works before login";
    "login" Login -> LoginReply, [audited before_login],
        "user password | token", "start a session as a user";
    "whoami" Whoami -> WhoamiReply, [],
        "", "this session's user, with its folders and quota";
    "passwd" Passwd -> Nothing, [audited],
        "old new", "change the password of this user";
    "tokens" Tokens -> TokensReply, [],
        "[user limit cursor]", "the tokens of this user; of another one for admins";
    "token_add" TokenAdd -> TokenAddReply, [audited],
        "[user label expires never_expires]", "make a token for this user; for another one for admins";
    "token_remove" TokenRemove -> Nothing, [audited],
        "number [user]", "revoke a token of this user; of another one for admins";
    "ping" Ping -> TimeReply, [unchecked],
        "", "the server's time";
    "quit" Quit -> Nothing, [before_login while_draining unchecked auxiliary],
        "", "end the session; the server closes";
    "help" Help -> HelpReply, [before_login unchecked],
        "[about]", "every command, or one, with its fields";
    "pwd" Pwd -> CwdReply, [auxiliary],
        "", "the current directory";
    "cd" Cd -> CwdReply, [],
        "path", "change the current directory";
    "ls" Ls -> LsReply, [],
        "[path limit cursor recursive digests]", "list a directory, a page at a time, or a whole tree";
    "stat" Stat -> StatReply, [auxiliary],
        "path", "size, time, mode, version and known digest of a file or directory";
    "setstat" SetStat -> SetStatReply, [audited concurrent],
        "path [modified mode]", "set the time or the mode of a file or directory";
    "mkdir" Mkdir -> PathReply, [audited],
        "path [parents mode]", "make a directory";
    "rm" Rm -> RmReply, [audited concurrent],
        "path [recursive]", "remove a file or a directory";
    "mv" Mv -> PathReply, [audited],
        "from to [if_exists]", "move or rename";
    "cp" Cp -> PathReply, [audited concurrent streaming],
        "from to [if_exists]", "copy a file or a directory on the server";
    "get" Get -> GetReply, [concurrent streaming],
        "path [offset length ranges digest version]", "receive a file as data frames";
    "put" Put -> PutReply, [audited concurrent streaming],
        "path [size if_exists modified mode resume parents digest base]", "send a file as data frames";
    "end" End -> Nothing, [while_draining unchecked],
        "id [digest]", "all data of the put with this id was sent";
    "copy" CopyRange -> Nothing, [while_draining unchecked],
        "id offset length", "the next bytes of the put with this id are a part of its base";
    "cancel" Cancel -> Nothing, [while_draining unchecked],
        "target", "end an unfinished get or put";
    "uploads" Uploads -> UploadsReply, [],
        "", "list partial uploads, which can be resumed";
    "discard" Discard -> Nothing, [audited],
        "upload", "delete a partial upload";
    "hash" Hash -> HashReply, [concurrent streaming],
        "path [digest]", "the digest of a file, computed by the server";
    "chunks" Chunks -> ChunksReply, [concurrent streaming],
        "path [version]", "receive lengths and hashes of the content chunks of a file";
    "df" Df -> DfReply, [],
        "", "usage and limits of the home or shared folder of the current directory";
    "who" Who -> WhoReply, [],
        "", "list the connected users";
    "say" Say -> SayReply, [concurrent],
        "to text", "send a message to a user, or to a room: `#` and its name";
    "history" History -> HistoryReply, [],
        "with [before limit]", "past messages with a user or in a room, one page at a time";
    "join" Join -> MembersReply, [],
        "room", "enter a room to receive its messages; the first user creates it";
    "leave" Leave -> MembersReply, [],
        "room", "leave a room";
    "send" SendTo -> SendReply, [concurrent],
        "to path", "offer a file to another user, without moving its bytes";
    "offers" Offers -> OffersReply, [],
        "", "list the open offers to this user";
    "accept" Accept -> PathReply, [audited concurrent],
        "offer [path]", "copy an offered file to this user";
    "decline" Decline -> Nothing, [],
        "offer", "reject an offer, or withdraw one";
    "watch" Watch -> WatchReply, [],
        "path [since epoch]", "report changes at and below a path";
    "unwatch" Unwatch -> Nothing, [],
        "watch", "end a watch";
    "ticket" Ticket -> TicketReply, [],
        "", "issue a ticket for datagrams of this session";
    "sessions" Sessions -> SessionsReply, [admin_only],
        "[limit cursor]", "list the sessions with their unfinished transfers";
    "users" Users -> UsersReply, [admin_only],
        "[limit cursor]", "list the accounts with their usage and rights";
    "user_add" UserAdd -> Nothing, [audited admin_only],
        "user password [admin limit files_limit]", "make an account";
    "user_set" UserSet -> Nothing, [audited admin_only],
        "user [admin disabled limit no_limit files_limit no_files_limit]", "change an account";
    "user_passwd" UserPasswd -> Nothing, [audited admin_only],
        "user password", "set the password of another user";
    "user_remove" UserRemove -> RemovedReply, [audited admin_only],
        "user", "remove an account";
    "folders" Folders -> FoldersReply, [admin_only],
        "[limit cursor]", "the shared folders with their members";
    "folder_add" FolderAdd -> Nothing, [audited admin_only],
        "folder [limit files_limit]", "make a shared folder";
    "folder_grant" FolderGrant -> Nothing, [audited admin_only],
        "folder user rights", "give a user rights in a shared folder";
    "folder_revoke" FolderRevoke -> Nothing, [audited admin_only],
        "folder user", "take all rights in a shared folder from a user";
    "folder_remove" FolderRemove -> RemovedReply, [audited admin_only],
        "folder", "remove a shared folder";
    "kick" Kick -> KickReply, [audited admin_only],
        "session | user", "end a session, or all sessions of a user";
    "reload" ReloadSettings -> ReloadReply, [audited admin_only],
        "[dry_run]", "read the settings and the certificate again";
    "drain" Drain -> DrainReply, [audited admin_only],
        "", "stop the server once running requests have finished";
    "log_level" SetLogLevel -> LogLevelReply, [audited admin_only],
        "[level seconds]", "read the log level, or change it for some time";
    "logs" Logs -> LogsReply, [admin_only concurrent streaming],
        "[follow last since user command path level event session]", "the last lines of the log, and new ones as they appear";
}

impl Request {
    /// The command's name on the wire.
    #[must_use]
    pub fn cmd(&self) -> &'static str {
        self.command().name
    }

    /// Name, summary and fields of every command, in the order of the documentation.
    #[must_use]
    pub fn help() -> Vec<CommandHelp> {
        Self::COMMANDS.iter().map(CommandInfo::to_help).collect()
    }

    /// The path that the request is about, as the client wrote it.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Cd(Cd { path })
            | Self::Stat(Stat { path })
            | Self::SetStat(SetStat { path, .. })
            | Self::Mkdir(Mkdir { path, .. })
            | Self::Rm(Rm { path, .. })
            | Self::Mv(Mv { from: path, .. })
            | Self::Cp(Cp { from: path, .. })
            | Self::Get(Get { path, .. })
            | Self::Put(Put { path, .. })
            | Self::Hash(Hash { path, .. })
            | Self::Chunks(Chunks { path, .. })
            | Self::SendTo(SendTo { path, .. })
            | Self::Watch(Watch { path, .. })
            | Self::Accept(Accept {
                path: Some(path), ..
            })
            | Self::Ls(Ls {
                path: Some(path), ..
            }) => Some(path),
            _ => None,
        }
    }

    /// The path that the request moves or copies something to.
    #[must_use]
    pub fn to(&self) -> Option<&str> {
        match self {
            Self::Mv(Mv { to, .. }) | Self::Cp(Cp { to, .. }) => Some(to),
            _ => None,
        }
    }
}

/// The control payload of a request.
///
/// # Panics
/// Never: every request serialises.
#[must_use]
pub fn encode_request<C: Call>(id: u32, request: &C) -> Vec<u8> {
    #[derive(Serialize)]
    struct RequestEnvelope<'a, C> {
        id: u32,
        cmd: &'static str,
        #[serde(flatten)]
        request: &'a C,
    }
    serde_json::to_vec(&RequestEnvelope {
        id,
        cmd: C::CMD,
        request,
    })
    .expect("a request is a struct of plain values")
}

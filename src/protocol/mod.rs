//! The wire, version 1: the meaning of the bytes between a client and a server.
//!
//! ```text
//! frame   = length payload          length: u32 big-endian, bytes in payload
//! payload = control | data
//! control = one JSON object, first byte '{'
//! data    = 0x01, stream: u32 big-endian, chunk
//! ```
//!
//! Pure: no sockets, no disk, no tasks. `docs/PROTOCOL.md` is the specification for authors of clients
//! in other languages.

mod accounts;
mod admin;
mod command;
mod datagram;
mod delta;
mod digest;
mod error;
mod event;
mod files;
mod frame;
mod limits;
mod live;
mod message;
mod mode;
mod name;
mod number;
mod parse;
mod reply;
mod request;
mod secret;
mod session;
mod time;
mod transfer;

pub use crate::protocol::accounts::{
    FolderAdd, FolderEntry, FolderGrant, FolderMemberEntry, FolderRemove, FolderRevoke, Folders,
    FoldersReply, RemovedReply, TokenAdd, TokenAddReply, TokenEntry, TokenRemove, Tokens,
    TokensReply, UserAdd, UserPasswd, UserRemove, UserSet,
};
pub use crate::protocol::admin::{
    Drain, DrainReply, Kick, KickReply, LogLevel, LogLevelReply, Logs, LogsBegin, LogsReply,
    ReloadReply, ReloadSettings, SessionDialect, SessionEntry, Sessions, SessionsReply,
    SetLogLevel, SettingChange, TransferEntry, UserEntry, Users, UsersReply,
};
pub use crate::protocol::command::CommandInfo;
pub use crate::protocol::datagram::{
    Ack, Datagram, DatagramKey, DatagramRequest, Discovered, MAX_DATAGRAM, SIGNATURE, Signed,
    Verified, encode_datagram, encode_error_within, encode_hello, encode_who_within,
};
pub use crate::protocol::delta::{
    CUTTING, Chunks, ChunksBegin, ChunksReply, ContentChunk, ContentChunker, CopyRange,
    MAX_CONTENT_CHUNK_BYTES, MAX_COPY_BYTES, MAX_RANGES, MIN_CONTENT_CHUNK_BYTES, RequestedRange,
};
pub use crate::protocol::digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use crate::protocol::error::{ErrorCode, QuotaUnit, WireError};
pub use crate::protocol::event::{ChangeKind, Changed, Event, GoodbyeReason};
pub use crate::protocol::files::{
    Cd, Cp, Df, Hash, IfExists, Ls, Mkdir, Mv, Pwd, Rm, SetStat, Stat,
};
pub use crate::protocol::frame::{Frame, FrameCodec, FrameError, put_control, put_data_head};
pub use crate::protocol::limits::{
    DEFAULT_PORT, MAX_CHUNK, MAX_CONTROL, MAX_CONTROL_BEFORE_LOGIN, MAX_NUMBER, MAX_PAYLOAD,
    VERSION,
};
pub use crate::protocol::live::{
    Accept, Decline, History, HistoryReply, Join, Leave, MAX_TEXT, MembersReply, Message, Offer,
    Offers, OffersReply, Present, Say, SayReply, SendReply, SendTo, Ticket, TicketReply, Unwatch,
    Watch, WatchReply, Who, WhoReply,
};
pub use crate::protocol::message::{
    ReplyBudget, ServerMessage, encode_begin, encode_error, encode_event, encode_ok, encode_refusal,
};
pub use crate::protocol::mode::{FileMode, InvalidFileMode};
pub(crate) use crate::protocol::name::{MAX_NAME_BYTES, numbered_name, reorders_text};
pub use crate::protocol::parse::{BadRequest, RequestHead};
pub use crate::protocol::reply::{
    CommandHelp, CwdReply, DfReply, Entry, FolderView, GetBegin, GetReply, HashReply, HelloReply,
    HelpReply, Kind, LoginReply, LsBegin, LsReply, Nothing, PathReply, PutBegin, PutReply,
    QuotaReply, ResumableUpload, RmReply, SetStatReply, StatReply, TimeReply, UploadsReply,
    WhoamiReply,
};
pub use crate::protocol::request::{Call, Request, encode_request};
pub use crate::protocol::secret::Secret;
pub use crate::protocol::session::{Hello, Help, Login, Passwd, Ping, Quit, Whoami};
pub use crate::protocol::transfer::{Cancel, DigestChoice, Discard, End, Get, Put, Uploads};

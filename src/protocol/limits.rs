//! The numbers that both ends of a connection agree on: the version, the port and the limits.

/// The version of the protocol that this crate implements.
pub const VERSION: u32 = 1;

/// The port that a server listens on by default.
pub const DEFAULT_PORT: u16 = 9000;

/// The length limit of a control payload, in bytes.
pub const MAX_CONTROL: usize = 64 * 1024;

/// The length limit of a control payload before login, in bytes.
pub const MAX_CONTROL_BEFORE_LOGIN: usize = 4 * 1024;

/// The length limit of the chunk of file bytes in one data frame, in bytes.
pub const MAX_CHUNK: usize = 1024 * 1024;

/// Bytes of a data payload before its chunk: the mark and the stream.
pub(super) const DATA_HEAD: usize = 1 + size_of::<u32>();

/// The length limit of the payload of any frame, in bytes: a data frame with a full chunk.
pub const MAX_PAYLOAD: usize = DATA_HEAD + MAX_CHUNK;

/// Numbers in requests are below this limit, because every JSON library reads them exactly.
pub const MAX_NUMBER: u64 = 1 << 53;

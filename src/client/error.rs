//! The errors of a client.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::io_error::describe_io_error;
use crate::protocol::{Digest, ErrorCode, GoodbyeReason, WireError};
use crate::tls::Fingerprint;

/// Why an operation of a client failed. Each message is one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect to {server}: {}", describe_io_error(.error))]
    Connect {
        /// Host and port.
        server: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The TLS handshake failed.
    #[error("cannot make an encrypted connection to {server}: {reason}")]
    Handshake {
        /// Host and port.
        server: String,
        /// The reason.
        reason: String,
    },
    /// The server at this address speaks no TLS.
    #[error("cannot make an encrypted connection to {server}: the server speaks no TLS")]
    NoTls {
        /// Host and port.
        server: String,
        /// Its certificate is known: it spoke TLS before.
        known: bool,
    },
    /// The server's certificate is not known, and no authority has signed it.
    #[error(
        "the server at {address} is not known; its certificate has the fingerprint {fingerprint}"
    )]
    UnknownServer {
        /// Host and port.
        address: String,
        /// The fingerprint of the certificate.
        fingerprint: Fingerprint,
    },
    /// The server is known, and its certificate is not the known one.
    #[error(
        "THE CERTIFICATE OF THE SERVER AT {address} HAS CHANGED: its fingerprint is {got}, not \
         {expected}; either the server has a new certificate, or someone between you and the server \
         pretends to be it, to read your password and your files; nothing was sent to it"
    )]
    ServerChanged {
        /// Host and port.
        address: String,
        /// The known fingerprint.
        expected: Fingerprint,
        /// The fingerprint of the server's certificate.
        got: Fingerprint,
    },
    /// The server's certificate is not the only one that is trusted.
    #[error(
        "the certificate of the server at {address} has the fingerprint {got}, \
         not the {expected} that was given; nothing was sent to it"
    )]
    WrongFingerprint {
        /// Host and port.
        address: String,
        /// The only fingerprint that is trusted.
        expected: Fingerprint,
        /// The fingerprint of the server's certificate.
        got: Fingerprint,
    },
    /// No trusted authority has signed the server's certificate, or it is not valid.
    #[error("the certificate of the server at {address} is not trusted: {reason}")]
    UntrustedCertificate {
        /// Host and port.
        address: String,
        /// The reason, such as another name.
        reason: String,
        /// The fingerprint of the certificate.
        fingerprint: Fingerprint,
    },
    /// The server refused the login.
    #[error("login refused: {0}")]
    Login(WireError),
    /// The server refused a request; the connection stays.
    #[error("{0}")]
    Server(WireError),
    /// A file exceeds the quota, or the free space of the server's disk.
    #[error("{error}")]
    NoSpace {
        /// The file's path on the server, as it was put.
        path: String,
        /// Its bytes, if they are known.
        size: Option<u64>,
        /// The error of the server.
        error: Box<WireError>,
    },
    /// The connection is lost, and every unfinished request with it.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The connection is lost, and could not be made again.
    #[error("{lost}, and {} to connect again failed: {cause}", attempts_text(*.attempts))]
    ReconnectFailed {
        /// Why the connection was lost.
        lost: String,
        /// The number of attempts to make another.
        attempts: u32,
        /// Why the last attempt failed.
        cause: Arc<ClientError>,
    },
    /// The connection is lost, and data from a pipe cannot be read again.
    #[error("{lost}, and the data from {} cannot be sent again", .pipe.display())]
    PipeLost {
        /// The name of the pipe.
        pipe: PathBuf,
        /// Why the connection was lost.
        lost: Box<Lost>,
    },
    /// The server did not answer a request that it answers at once.
    #[error("the server did not answer within {0:?}")]
    TimedOut(Duration),
    /// The transfer has ended before; nothing can be added to it.
    #[error("the transfer has ended already")]
    TransferEnded,
    /// A request that no server accepts; it was not sent.
    #[error("the request has {length} bytes, over the limit of {limit}")]
    TooLong {
        /// Bytes of the request.
        length: usize,
        /// The largest allowed number of bytes.
        limit: usize,
    },
    /// A message of the server breaks the protocol.
    #[error("the server sent an invalid reply: {0}")]
    InvalidReply(String),
    /// An operation on the local file system failed.
    #[error("cannot {doing} {}: {}", .path.display(), describe_io_error(.error))]
    Local {
        /// The operation, such as `read`.
        doing: &'static str,
        /// The local path.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The local file was written to while it was sent.
    #[error("{} changed while it was read", .0.display())]
    LocalChanged(PathBuf),
    /// An entry that is neither a file nor a directory cannot be put. A pipe can, with
    /// [`put_from`](crate::client::Client::put_from).
    #[error("{} is neither a file nor a directory", .0.display())]
    LocalNotAFile(PathBuf),
    /// A link whose target does not exist cannot be put.
    #[error("{} is a link to a path that does not exist", .0.display())]
    LocalBrokenLink(PathBuf),
    /// A name that cannot be sent.
    #[error("the name of {} is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// A local file exists and must not be replaced.
    #[error("{} exists already", .0.display())]
    LocalExists(PathBuf),
    /// The content was damaged on the way.
    #[error("the digest of the content on the server is {server}, and here {local}")]
    DigestMismatch {
        /// The digest of the server.
        server: Digest,
        /// The digest of this side.
        local: Digest,
    },
    /// A name from the server that could lead out of its directory, control a terminal, or be taken for
    /// the part file of a download.
    #[error("no file can be saved under the name {0:?} that the server has; choose another name")]
    UnsafeName(String),
    /// More nested directories than a server allows.
    #[error("the directory is more than {0} levels deep")]
    TooDeep(u32),
    /// The server is too old for a request.
    #[error("the server cannot {0}; it needs a newer version of haul")]
    MissingFeature(&'static str),
    /// A sync whose roots do not fit each other.
    #[error("{0}")]
    InvalidSync(String),
}

impl ClientError {
    pub(crate) fn invalid_reply(what: &str) -> Self {
        Self::InvalidReply(what.into())
    }

    /// The server's code, if the server refused something.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Login(error) | Self::Server(error) | Self::Lost(Lost::Refused(error)) => {
                Some(error.code)
            }
            Self::NoSpace { error, .. } => Some(error.code),
            Self::ReconnectFailed { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// Whether the remaining parts of a larger job would fail in the same way.
    #[must_use]
    pub fn ends_everything(&self) -> bool {
        match self {
            Self::Server(error) => matches!(
                error.code,
                ErrorCode::QuotaExceeded
                    | ErrorCode::NoSpace
                    | ErrorCode::NotLoggedIn
                    | ErrorCode::ShuttingDown
            ),
            Self::Local { error, .. } => matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::Lost(_)
            | Self::NoSpace { .. }
            | Self::ReconnectFailed { .. }
            | Self::PipeLost { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::NoTls { .. }
            | Self::UnknownServer { .. }
            | Self::ServerChanged { .. }
            | Self::WrongFingerprint { .. }
            | Self::UntrustedCertificate { .. }
            | Self::Login(_) => true,
            _ => false,
        }
    }

    /// The local path that the message names.
    pub(crate) fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local { path, .. }
            | Self::LocalChanged(path)
            | Self::LocalNotAFile(path)
            | Self::LocalBrokenLink(path)
            | Self::NotUtf8(path)
            | Self::LocalExists(path) => Some(path),
            _ => None,
        }
    }

    pub(super) fn local(doing: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self::Local {
            doing,
            path: path.into(),
            error,
        }
    }
}

/// Why a connection was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The server closed it without a reason.
    #[error("the server closed the connection")]
    Closed,
    /// The server announced the reason before it closed.
    #[error("{}", farewell(*.0))]
    Goodbye(GoodbyeReason),
    /// The server sent an error and closed.
    #[error("the server closed the connection: {0}")]
    Refused(WireError),
    /// This side closed it.
    #[error("this side closed the connection")]
    HungUp,
    /// The events of this connection were not read for too long.
    #[error("the connection was closed because its events were not read for too long")]
    EventsUnread,
    /// The server answered a request that was not sent: it is broken, or a byte was damaged on the way.
    #[error("the server sent {0}, for which this client has no request")]
    Unexpected(String),
    /// The network failed, or the peer does not answer.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server refused the client's certificate.
    #[error("the server refused the client's certificate: {0}")]
    CertificateRefused(String),
    /// The peer at this address is not a haul server.
    #[error("the peer is not a haul server: {0}")]
    NotHaul(String),
}

/// `1 attempt`, `2 attempts`.
fn attempts_text(number: u32) -> String {
    format!("{number} attempt{}", if number == 1 { "" } else { "s" })
}

fn farewell(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::ShuttingDown => "the server is shutting down",
        GoodbyeReason::AccountClosed => "the account was disabled or removed",
        GoodbyeReason::Idle => "the session was idle for too long",
        GoodbyeReason::Kicked => "an operator of the server has ended the session",
        _ => "the server ended the session",
    }
}

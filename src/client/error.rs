//! The errors of a client.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Digest, ErrorCode, GoodbyeReason, WireError};
use crate::tls::Fingerprint;

/// Why something that a client was asked for did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection could be made.
    #[error("could not connect to {server}")]
    Connect {
        /// Host and port.
        server: String,
        /// The error of the system.
        source: io::Error,
    },
    /// No encrypted connection came about.
    #[error("no encrypted connection with {server} came about: {reason}")]
    Handshake {
        /// Host and port.
        server: String,
        /// The reason.
        reason: String,
    },
    /// The server at this address speaks no TLS.
    #[error("no encrypted connection with {server} came about: what answers there speaks no TLS")]
    NoTls {
        /// Host and port.
        server: String,
        /// Its certificate is known: it spoke TLS before.
        known: bool,
    },
    /// The server's certificate is not known, and no authority vouches for it.
    #[error(
        "the server at {address} is not known; its certificate has the fingerprint {fingerprint}"
    )]
    UnknownServer {
        /// Host and port.
        address: String,
        /// That of the certificate.
        fingerprint: Fingerprint,
    },
    /// The server is known, and shows another certificate than before.
    #[error(
        "THE SERVER AT {address} SHOWS ANOTHER CERTIFICATE THAN BEFORE: {got} in place of \
         {expected}; either it was given a new one, or someone between you and the server \
         pretends to be it, to read your password and your files; nothing was sent to it"
    )]
    ServerChanged {
        /// Host and port.
        address: String,
        /// What is known.
        expected: Fingerprint,
        /// The fingerprint that the server showed.
        got: Fingerprint,
    },
    /// The server's certificate is not the one that alone is trusted.
    #[error(
        "the certificate of the server at {address} has the fingerprint {got}, \
         not the {expected} that was given; nothing was sent to it"
    )]
    WrongFingerprint {
        /// Host and port.
        address: String,
        /// The only fingerprint that is trusted.
        expected: Fingerprint,
        /// The fingerprint that the server showed.
        got: Fingerprint,
    },
    /// An authority that is trusted does not vouch for the server, and can say why.
    #[error("the certificate of the server at {address} is not trusted: {reason}")]
    Uncertified {
        /// Host and port.
        address: String,
        /// What is wrong with it, such as the name.
        reason: String,
        /// That of the certificate.
        fingerprint: Fingerprint,
    },
    /// The server did not let this user in.
    #[error("login refused: {0}")]
    Login(WireError),
    /// The server said no to a request; the connection lives.
    #[error("{0}")]
    Server(WireError),
    /// The quota, or the server's disk, has no room for a file.
    #[error("{error}")]
    NoRoom {
        /// The file's path on the server, as it was put.
        path: String,
        /// Its bytes, if they are known.
        size: Option<u64>,
        /// The error of the server.
        error: Box<WireError>,
    },
    /// The connection is gone, and every call that was unfinished with it.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The connection is gone, and could not be made anew.
    #[error("{lost}, and {} to connect again failed", tries(*.attempts))]
    NotBack {
        /// Why the connection was lost.
        lost: String,
        /// How often it was tried to make another.
        attempts: u32,
        /// Why the last of these failed.
        source: Arc<ClientError>,
    },
    /// The connection is gone, and what came from a pipe cannot be had again.
    #[error("{lost}, and what {} gave cannot be sent again", .pipe.display())]
    PipeLost {
        /// The name of the pipe.
        pipe: PathBuf,
        /// Why the connection was lost.
        lost: Box<Lost>,
    },
    /// The server did not answer a request that it answers at once.
    #[error("the server did not answer within {0:?}")]
    TimedOut(Duration),
    /// The transfer has failed before; nothing can be added to it.
    #[error("the transfer is over already")]
    Over,
    /// A request that no server would take; it was not sent.
    #[error("a request of {length} bytes, over the limit of {limit}")]
    TooLong {
        /// Bytes of the request.
        length: usize,
        /// The most that it may have.
        limit: usize,
    },
    /// The server's answer breaks the protocol.
    #[error("the server's answer makes no sense: {0}")]
    Nonsense(String),
    /// The local file system said no.
    #[error("could not {doing} {}", path.display())]
    Local {
        /// The operation, such as `read`.
        doing: &'static str,
        /// The local path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The local file became another while it was sent.
    #[error("{} changed while it was read", .0.display())]
    LocalChanged(PathBuf),
    /// What is neither file nor directory cannot be put. A pipe can, with
    /// [`put_from`](crate::client::Client::put_from).
    #[error("{}: neither file nor directory", .0.display())]
    LocalNeither(PathBuf),
    /// A link to nothing cannot be put.
    #[error("{}: a link to nothing", .0.display())]
    LocalDangling(PathBuf),
    /// A name that cannot be sent.
    #[error("its name is not UTF-8")]
    NotUtf8,
    /// A file is there already and was to be kept.
    #[error("there is a file already: {}", .0.display())]
    LocalExists(PathBuf),
    /// The bytes that arrived are not those that were sent.
    #[error("the digests differ: the server has {server}, this side {local}")]
    DigestMismatch {
        /// The digest of the server.
        server: Digest,
        /// The digest of this side.
        local: Digest,
    },
    /// A name from the server that could lead out of its directory, drive a terminal, or be taken for
    /// the part file of a download.
    #[error("no file is saved under a name like {0:?}, which the server has; name another one")]
    UnsafeName(String),
    /// Directories within directories, more than a server may have.
    #[error("it is more than {0} levels deep")]
    TooDeep(u32),
}

impl ClientError {
    /// The server's code, if the server said no.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Login(error) | Self::Server(error) | Self::Lost(Lost::Refused(error)) => {
                Some(error.code)
            }
            Self::NoRoom { error, .. } => Some(error.code),
            Self::NotBack { source, .. } => source.code(),
            _ => None,
        }
    }

    /// Whether what else a larger job has to do would fail in the same way.
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
            Self::Local { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::Lost(_)
            | Self::NoRoom { .. }
            | Self::NotBack { .. }
            | Self::PipeLost { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::NoTls { .. }
            | Self::UnknownServer { .. }
            | Self::ServerChanged { .. }
            | Self::WrongFingerprint { .. }
            | Self::Uncertified { .. }
            | Self::Login(_) => true,
            _ => false,
        }
    }

    /// The local path that the message names.
    pub(crate) fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Local { path, .. }
            | Self::LocalChanged(path)
            | Self::LocalNeither(path)
            | Self::LocalDangling(path)
            | Self::LocalExists(path) => Some(path),
            _ => None,
        }
    }

    pub(super) fn local(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Local {
            doing,
            path: path.into(),
            source,
        }
    }
}

/// Why a connection is gone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The server closed it without a word.
    #[error("the server closed the connection")]
    Closed,
    /// The server said goodbye before it closed.
    #[error("{}", farewell(*.0))]
    Goodbye(GoodbyeReason),
    /// The server hung up, and said why.
    #[error("the server hung up: {0}")]
    Refused(WireError),
    /// This side hung up.
    #[error("this side hung up")]
    HungUp,
    /// Nobody read the events of this connection for too long.
    #[error("what the server had to tell was not read for too long")]
    Unheard,
    /// The server sent what answers no request: it is broken, or a byte was damaged on the way.
    #[error("the server sent {0}, for which this client has no request")]
    Unexpected(String),
    /// The network failed, or the other side is gone.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server does not take the client's certificate.
    #[error("the server does not take the client's certificate: {0}")]
    CertificateRefused(String),
    /// The peer at this address is no haul server.
    #[error("what answers there does not speak haul: {0}")]
    NotHaul(String),
}

/// `1 attempt`, `2 attempts`.
fn tries(number: u32) -> String {
    format!("{number} attempt{}", if number == 1 { "" } else { "s" })
}

fn farewell(reason: GoodbyeReason) -> &'static str {
    match reason {
        GoodbyeReason::ShuttingDown => "the server is shutting down",
        GoodbyeReason::AccountClosed => "the account was disabled or removed",
        GoodbyeReason::Idle => "the session was idle for too long",
        GoodbyeReason::Kicked => "an operator of the server has ended the session",
        _ => "the server said goodbye",
    }
}

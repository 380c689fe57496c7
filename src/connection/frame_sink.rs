//! The writing half of a byte stream. A plain TCP connection supports `sendfile`.

use std::fmt;

use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// The byte stream that frames are written to.
pub struct FrameSink<W> {
    pub(crate) writer: W,
    tcp: fn(&W) -> Option<&TcpStream>,
}

impl<W> FrameSink<W> {
    /// A sink for any byte stream.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            tcp: |_| None,
        }
    }

    /// Returns the byte stream.
    pub fn into_inner(self) -> W {
        self.writer
    }

    /// Whether the kernel can send file data to it without a copy in this process.
    pub(crate) fn supports_sendfile(&self) -> bool {
        self.tcp().is_some()
    }

    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        (self.tcp)(&self.writer)
    }
}

impl FrameSink<OwnedWriteHalf> {
    /// A sink for an unencrypted TCP connection.
    #[must_use]
    pub fn for_tcp(writer: OwnedWriteHalf) -> Self {
        Self {
            writer,
            tcp: |writer| Some(writer.as_ref()),
        }
    }
}

impl<W> From<W> for FrameSink<W> {
    fn from(writer: W) -> Self {
        Self::new(writer)
    }
}

impl<W> fmt::Debug for FrameSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSink")
            .field("supports_sendfile", &self.supports_sendfile())
            .finish_non_exhaustive()
    }
}

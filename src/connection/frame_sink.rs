//! The writing half of a byte stream, and what is special about one that is a bare TCP connection.

use std::fmt;

use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// Where frames are written to.
pub struct FrameSink<W> {
    pub(crate) writer: W,
    tcp: fn(&W) -> Option<&TcpStream>,
}

impl<W> FrameSink<W> {
    /// Any byte stream.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            tcp: |_| None,
        }
    }

    /// The byte stream itself.
    pub fn into_inner(self) -> W {
        self.writer
    }

    /// Whether the kernel can put bytes of files into it, as they are.
    pub(crate) fn takes_files(&self) -> bool {
        self.tcp().is_some()
    }

    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        (self.tcp)(&self.writer)
    }
}

impl FrameSink<OwnedWriteHalf> {
    /// A TCP connection on which nothing is encrypted.
    #[must_use]
    pub fn tcp_stream(writer: OwnedWriteHalf) -> Self {
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
        f.debug_struct("Outlet")
            .field("takes_files", &self.takes_files())
            .finish_non_exhaustive()
    }
}

//! Detects the protocol of a connection by its first four bytes.

use std::io::Cursor;

use tokio::io::{AsyncRead, AsyncReadExt, Chain};

/// The protocol that the first four bytes announce. It is not the dialect of a session: TLS is a layer
/// below the dialect, and an unknown protocol gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SniffedProtocol {
    /// A TLS `ClientHello`.
    Tls,
    /// Framed, version 1: a big-endian length under 64 KiB.
    Framed,
    /// The classic dialect: a little-endian length under 64 KiB.
    Classic,
    /// No protocol of haul.
    Junk,
}

impl SniffedProtocol {
    fn from_first_bytes(bytes: [u8; 4]) -> Self {
        match bytes {
            [0, 0, _, _] => Self::Framed,
            // Before TLS, because a classic frame of 22 bytes begins with 0x16, too. The third byte
            // of a `ClientHello` is the minor version of its record, which is not zero.
            [_, _, 0, 0] => Self::Classic,
            [0x16, ..] => Self::Tls,
            _ => Self::Junk,
        }
    }
}

/// A stream whose first four bytes were read and are returned again.
pub(crate) type Sniffed<R> = Chain<Cursor<[u8; 4]>, R>;

/// Reads the first four bytes; `None` if the peer closes before it has sent them.
pub(crate) async fn sniff<R: AsyncRead + Unpin>(
    mut reader: R,
) -> std::io::Result<Option<(SniffedProtocol, Sniffed<R>)>> {
    let mut first = [0; 4];
    match reader.read_exact(&mut first).await {
        Ok(_) => Ok(Some((
            SniffedProtocol::from_first_bytes(first),
            Cursor::new(first).chain(reader),
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_bytes_decide_the_protocol() {
        for (bytes, opening) in [
            ([0x16, 3, 1, 2], SniffedProtocol::Tls),
            ([0, 0, 0, 0], SniffedProtocol::Framed),
            ([0, 0, 0, 40], SniffedProtocol::Framed),
            ([0, 0, 0xff, 0xff], SniffedProtocol::Framed),
            ([40, 0, 0, 0], SniffedProtocol::Classic),
            ([1, 1, 0, 0], SniffedProtocol::Classic),
            ([0x16, 0, 0, 0], SniffedProtocol::Classic),
            ([0x16, 3, 0, 0], SniffedProtocol::Classic),
            (*b"GET ", SniffedProtocol::Junk),
            ([0xff; 4], SniffedProtocol::Junk),
            ([0, 1, 0, 1], SniffedProtocol::Junk),
        ] {
            assert_eq!(
                SniffedProtocol::from_first_bytes(bytes),
                opening,
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_sniffed_bytes_are_read_again() {
        let stream = &b"\0\0\0\x02{}"[..];
        let (opening, mut again) = sniff(stream).await.expect("no error").expect("four bytes");
        let mut bytes = Vec::new();
        again.read_to_end(&mut bytes).await.expect("no error");
        assert_eq!((opening, &bytes[..]), (SniffedProtocol::Framed, stream));
    }
}

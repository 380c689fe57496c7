//! The PROXY header, version 2, by which a balancer says whom it connects. The format is that of
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX, ParseError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version, command, family and length.
const HEAD: usize = 16;

/// Bytes of addresses and of what a balancer adds to them. Real ones send a few dozen.
const LONGEST: usize = 520;

/// No PROXY header, or none that is understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("it does not begin with a PROXY header of version 2")]
    NoHeader,
    #[error("its PROXY header is of {0} bytes, more than {LONGEST}")]
    TooLong(usize),
    #[error("its PROXY header is wrong: {0}")]
    Wrong(#[from] ParseError),
}

/// Reads the header, and not a byte more. `None` if the balancer speaks for itself or names no
/// address.
pub(crate) async fn read_header<R: AsyncRead + Unpin>(
    reader: &mut R,
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut bytes = [0; HEAD + LONGEST];
    let (signature, rest) = bytes.split_at_mut(PROTOCOL_PREFIX.len());
    // What is none is known by its first byte: junk is not waited for.
    for (byte, expected) in signature.iter_mut().zip(PROTOCOL_PREFIX) {
        *byte = reader.read_u8().await?;
        if byte != expected {
            return Err(ProxyError::NoHeader);
        }
    }
    let (head, rest) = rest.split_at_mut(HEAD - PROTOCOL_PREFIX.len());
    reader.read_exact(head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let body = rest.get_mut(..length).ok_or(ProxyError::TooLong(length))?;
    reader.read_exact(body).await?;
    let header = Header::try_from(&bytes[..HEAD + length])?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(v4)) => Some((v4.source_address, v4.source_port).into()),
        (Command::Proxy, Addresses::IPv6(v6)) => Some((v6.source_address, v6.source_port).into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with these bytes after the signature, and the length of the rest.
    fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = PROTOCOL_PREFIX.to_vec();
        bytes.extend([version_and_command, family]);
        bytes.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn v4() -> Vec<u8> {
        header(
            0x21,
            0x11,
            &[203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 0x23, 0x28],
        )
    }

    async fn read(bytes: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
        read_header(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn the_source_of_a_header_is_the_peer() {
        let peer = read(&v4()).await.expect("right");
        assert_eq!(peer, Some("203.0.113.7:4660".parse().expect("an address")));
        let mut rest = Vec::from(
            "2001:db8::7"
                .parse::<std::net::Ipv6Addr>()
                .expect("v6")
                .octets(),
        );
        rest.extend([0; 16]);
        rest.extend([0x12, 0x34, 0x23, 0x28]);
        rest.extend(b"\x04\0\x03abc");
        let peer = read(&header(0x21, 0x21, &rest)).await.expect("right");
        assert_eq!(
            peer,
            Some("[2001:db8::7]:4660".parse().expect("an address"))
        );
    }

    #[tokio::test]
    async fn a_balancer_that_speaks_for_itself_or_of_no_address_names_nobody() {
        for bytes in [
            header(0x20, 0x00, &[]),
            header(0x20, 0x11, &v4()[16..]),
            header(0x21, 0x00, &[]),
            header(0x21, 0x31, &[7; 216]),
        ] {
            assert_eq!(read(&bytes).await.expect("right"), None, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn nothing_after_the_header_is_read_and_it_may_come_byte_by_byte() {
        let bytes = [v4(), b"\0\0\0\x02{}".to_vec()].concat();
        let (mut near, mut far) = tokio::io::duplex(1);
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            near.write_all(&bytes).await.expect("open");
        });
        assert!(read_header(&mut far).await.expect("right").is_some());
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("open");
        assert_eq!(rest, b"\0\0\0\x02{}");
        writing.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_header_cut_off_anywhere_or_bent_anywhere_in_its_signature_is_refused() {
        let whole = v4();
        for length in 0..whole.len() {
            let error = read(&whole[..length]).await.expect_err("cut off");
            assert!(matches!(error, ProxyError::Io(_)), "{length}: {error}");
        }
        for place in 0..PROTOCOL_PREFIX.len() {
            let mut bent = whole.clone();
            bent[place] ^= 0x40;
            let error = read(&bent).await.expect_err("bent");
            assert!(matches!(error, ProxyError::NoHeader), "{place}: {error}");
        }
    }

    #[tokio::test]
    async fn a_header_too_long_or_too_short_for_what_it_says_or_of_another_version_is_refused() {
        let long = header(0x21, 0x11, &[0; 521]);
        assert!(matches!(read(&long).await, Err(ProxyError::TooLong(521))));
        assert!(read(&header(0x21, 0x11, &[0; 520])).await.is_ok());
        for bytes in [
            header(0x21, 0x11, &[0; 11]),
            header(0x21, 0x21, &[0; 35]),
            header(0x11, 0x11, &[0; 12]),
            header(0x22, 0x11, &[0; 12]),
            header(0x21, 0x41, &[0; 12]),
        ] {
            let error = read(&bytes).await.expect_err("wrong");
            assert!(matches!(error, ProxyError::Wrong(_)), "{error}");
        }
        let text = b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 9000\r\n";
        assert!(matches!(read(text).await, Err(ProxyError::NoHeader)));
    }
}

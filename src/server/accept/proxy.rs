//! Reads the PROXY header, version 2, in which a load balancer names the client that it connects. The
//! format is in section 2.2 of <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX, ParseError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the signature, version, command, family and length.
const HEADER_BYTES: usize = 16;

/// The most bytes of addresses and extensions. Real balancers send a few dozen.
const MAX_BODY_BYTES: usize = 520;

/// Why a PROXY header could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the connection does not start with a PROXY header of version 2")]
    NoHeader,
    #[error("the PROXY header has {0} bytes, more than {MAX_BODY_BYTES}")]
    TooLong(usize),
    #[error("the PROXY header is malformed: {0}")]
    Malformed(#[from] ParseError),
}

/// Reads the header and not a byte more; returns the client's address. `None` if the balancer connects
/// for itself (a health check) or names no IP address.
pub(crate) async fn read_header<R: AsyncRead + Unpin>(
    reader: &mut R,
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut bytes = [0; HEADER_BYTES + MAX_BODY_BYTES];
    let (signature, rest) = bytes.split_at_mut(PROTOCOL_PREFIX.len());
    // Checked byte by byte, so that the server does not wait for more of something else.
    for (byte, expected) in signature.iter_mut().zip(PROTOCOL_PREFIX) {
        *byte = reader.read_u8().await?;
        if byte != expected {
            return Err(ProxyError::NoHeader);
        }
    }
    let (head, rest) = rest.split_at_mut(HEADER_BYTES - PROTOCOL_PREFIX.len());
    reader.read_exact(head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let body = rest.get_mut(..length).ok_or(ProxyError::TooLong(length))?;
    reader.read_exact(body).await?;
    let header = Header::try_from(&bytes[..HEADER_BYTES + length])?;
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
    async fn a_health_check_or_a_header_without_an_ip_address_names_no_client() {
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
    async fn bytes_after_the_header_are_not_read_and_it_may_arrive_byte_by_byte() {
        let bytes = [v4(), b"\0\0\0\x02{}".to_vec()].concat();
        let (mut client, mut server) = tokio::io::duplex(1);
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            client.write_all(&bytes).await.expect("open");
        });
        assert!(read_header(&mut server).await.expect("right").is_some());
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.expect("open");
        assert_eq!(rest, b"\0\0\0\x02{}");
        writing.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_truncated_header_or_a_wrong_signature_is_refused_at_any_byte() {
        let complete = v4();
        for length in 0..complete.len() {
            let error = read(&complete[..length]).await.expect_err("cut off");
            assert!(matches!(error, ProxyError::Io(_)), "{length}: {error}");
        }
        for place in 0..PROTOCOL_PREFIX.len() {
            let mut bent = complete.clone();
            bent[place] ^= 0x40;
            let error = read(&bent).await.expect_err("bent");
            assert!(matches!(error, ProxyError::NoHeader), "{place}: {error}");
        }
    }

    #[tokio::test]
    async fn a_header_of_a_wrong_length_or_version_is_refused() {
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
            assert!(matches!(error, ProxyError::Malformed(_)), "{error}");
        }
        let text = b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 9000\r\n";
        assert!(matches!(read(text).await, Err(ProxyError::NoHeader)));
    }
}

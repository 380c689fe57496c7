//! Binds the same port for connections and datagrams.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};

/// Attempts with port 0: the system may choose a TCP port whose UDP port is in use.
const MAX_BIND_ATTEMPTS: usize = 16;

/// Binds `address` for connections and, if `datagrams` is set, for datagrams. With port 0 the system
/// chooses a port that is free for both.
///
/// # Errors
/// The error of the first socket that cannot be bound.
pub async fn bind(
    address: SocketAddr,
    datagrams: bool,
) -> io::Result<(TcpListener, Option<UdpSocket>)> {
    let mut tries = if address.port() == 0 {
        MAX_BIND_ATTEMPTS
    } else {
        1
    };
    loop {
        let listener = TcpListener::bind(address).await?;
        if !datagrams {
            return Ok((listener, None));
        }
        tries -= 1;
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_halves_have_the_same_port_or_there_is_an_error() {
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let (listener, socket) = bind(anywhere, true).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let socket = socket.expect("it was asked for");
        assert_eq!(socket.local_addr().expect("bound"), address);
        drop(listener);
        let taken = bind(address, true)
            .await
            .expect_err("its other half is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let (_, none) = bind(address, false).await.expect("connections alone");
        assert!(none.is_none());
    }
}

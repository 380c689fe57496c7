//! One port for connections and datagrams.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};

/// Where the system chooses the port, it may choose one whose other half is taken.
const TRIES: usize = 16;

/// Takes `address` for connections and, if they are wanted, for datagrams. With port 0 the system
/// chooses one that is free for both.
///
/// # Errors
/// What the system says, of the first half that can not be had.
pub async fn bind(
    address: SocketAddr,
    datagrams: bool,
) -> io::Result<(TcpListener, Option<UdpSocket>)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
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

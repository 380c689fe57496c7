//! Discovery of servers: one datagram to every machine of the local networks, and the replies of a limited
//! time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::protocol::{Discovered, MAX_DATAGRAM, encode_hello};

/// Servers in one result. It bounds the memory if the network is flooded with replies.
const MAX_SERVERS: usize = 1000;

/// A server that has replied. Its statements are not authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiscoveredServer {
    /// The address of its connections.
    pub address: SocketAddr,
    /// The name of its machine.
    pub name: String,
    /// Name and version of its program.
    pub server: String,
    /// The version of its protocol.
    pub protocol: u32,
}

/// The default addresses to ask: this machine, and every machine of its networks.
#[must_use]
pub fn neighbourhood(port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv4Addr::BROADCAST.into(),
    ];
    // If this fails, the global broadcast address is still asked.
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        if let if_addrs::IfAddr::V4(own) = interface.addr
            && let Some(broadcast) = own.broadcast
            && !own.is_loopback()
        {
            addresses.push(broadcast.into());
        }
    }
    addresses.push(Ipv6Addr::LOCALHOST.into());
    let addresses = addresses.into_iter();
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Asks all of `addresses`, which may be broadcast addresses, and collects the replies that arrive within
/// `wait`, in the order of addresses.
///
/// # Errors
/// The error of the system, if no address could be asked.
pub async fn discover(
    addresses: &[SocketAddr],
    wait: Duration,
) -> io::Result<Vec<DiscoveredServer>> {
    let of = |is_wanted: fn(&SocketAddr) -> bool| {
        let addresses = addresses.iter().copied();
        addresses.filter(is_wanted).collect::<Vec<_>>()
    };
    let (four, six) = (of(SocketAddr::is_ipv4), of(SocketAddr::is_ipv6));
    let until = Instant::now() + wait;
    let (four, six) = tokio::join!(
        ask(Ipv4Addr::UNSPECIFIED.into(), &four, until),
        ask(Ipv6Addr::UNSPECIFIED.into(), &six, until),
    );
    let mut found = match (four, six) {
        (Err(error), Err(_)) => return Err(error),
        (four, six) => {
            let mut found = four.unwrap_or_default();
            found.extend(six.unwrap_or_default());
            found
        }
    };
    let own = if_addrs::get_if_addrs().unwrap_or_default();
    let own: Vec<_> = own.iter().map(if_addrs::Interface::ip).collect();
    drop_own_copies(&mut found, &own);
    Ok(found.into_values().collect())
}

/// Asks the addresses of one family, twice: a datagram may be lost.
async fn ask(
    any: IpAddr,
    addresses: &[SocketAddr],
    until: Instant,
) -> io::Result<BTreeMap<SocketAddr, DiscoveredServer>> {
    let no_address = || io::Error::new(io::ErrorKind::NotFound, "no address to ask");
    if addresses.is_empty() {
        return Err(no_address());
    }
    let socket = UdpSocket::bind((any, 0)).await?;
    if any.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    let question = encode_hello();
    let mut found = BTreeMap::new();
    let (mut asked, mut failure) = (false, no_address());
    let half = Instant::now() + until.saturating_duration_since(Instant::now()) / 2;
    for pause in [half, until] {
        for address in addresses {
            match socket.send_to(&question, address).await {
                Ok(_) => asked = true,
                // Some of them may be unreachable.
                Err(error) => failure = error,
            }
        }
        if !asked {
            return Err(failure);
        }
        let _ = timeout_at(pause, collect_replies(&socket, &mut found)).await;
    }
    Ok(found)
}

/// Collects replies, without an end.
async fn collect_replies(socket: &UdpSocket, found: &mut BTreeMap<SocketAddr, DiscoveredServer>) {
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        // The error concerns one machine without a server.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let answer: Result<Discovered, _> = serde_json::from_slice(&buffer[..length]);
        if let Ok(answer) = answer
            && found.len() < MAX_SERVERS
        {
            let mut address = from;
            address.set_port(answer.port);
            let Discovered {
                server,
                name,
                protocol,
                ..
            } = answer;
            found.insert(
                address,
                DiscoveredServer {
                    address,
                    name,
                    server,
                    protocol,
                },
            );
        }
    }
}

/// A server on this machine answers on each of its addresses: of those, one that others can use is
/// kept.
fn drop_own_copies(found: &mut BTreeMap<SocketAddr, DiscoveredServer>, own: &[IpAddr]) {
    let is_here = |address: &SocketAddr| own.contains(&address.ip());
    let rank = |address: &SocketAddr| (address.ip().is_loopback(), address.is_ipv6(), *address);
    let mut best = BTreeMap::new();
    for address in found.keys().filter(|address| is_here(address)) {
        let kept = best.entry(address.port()).or_insert(*address);
        *kept = std::cmp::min_by_key(*kept, *address, rank);
    }
    found.retain(|address, _| !is_here(address) || best.get(&address.port()) == Some(address));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> BTreeMap<SocketAddr, DiscoveredServer> {
        let one = |address: &&str| {
            let address = address.parse().expect("an address");
            let found = DiscoveredServer {
                address,
                name: "attic".into(),
                server: "haul/0".into(),
                protocol: 1,
            };
            (address, found)
        };
        addresses.iter().map(one).collect()
    }

    #[test]
    fn a_server_of_this_machine_is_listed_once_and_others_under_each_address() {
        let own = ["127.0.0.1", "::1", "192.0.2.1"].map(|ip| ip.parse().expect("an address"));
        let mut all = found(&[
            "127.0.0.1:9000",
            "[::1]:9000",
            "192.0.2.1:9000",
            "127.0.0.1:9001",
            "[::1]:9001",
            "192.0.2.7:9000",
            "192.0.2.8:9000",
        ]);
        drop_own_copies(&mut all, &own);
        let left: Vec<_> = all.keys().map(ToString::to_string).collect();
        assert_eq!(
            left,
            [
                "127.0.0.1:9001",
                "192.0.2.1:9000",
                "192.0.2.7:9000",
                "192.0.2.8:9000"
            ]
        );
    }

    #[test]
    fn the_default_addresses_are_this_machine_and_its_networks() {
        let addresses = neighbourhood(9000);
        for expected in ["127.0.0.1:9000", "255.255.255.255:9000", "[::1]:9000"] {
            assert!(addresses.contains(&expected.parse().expect("an address")));
        }
        assert!(addresses.iter().all(|address| address.port() == 9000));
    }

    #[tokio::test]
    async fn junk_datagrams_are_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_addr().expect("bound");
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 2000];
            let (length, from) = server.recv_from(&mut buffer).await.expect("a question");
            let answer = Discovered::new("haul/0.1.0", "attic", 9000);
            let answer = answer.encode_within(length).expect("it has room");
            for datagram in [b"junk", &answer[..9], &answer, &answer] {
                server.send_to(datagram, from).await.expect("sent");
            }
        });
        let found = discover(&[address], Duration::from_millis(500)).await;
        let found = found.expect("it could be asked");
        answering.await.expect("no panic");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address.port(), 9000);
        assert_eq!((&*found[0].name, found[0].protocol), ("attic", 1));
    }

    #[tokio::test]
    async fn no_address_is_an_error_and_no_reply_is_an_empty_list() {
        let soon = Duration::from_millis(1);
        assert!(discover(&[], soon).await.is_err());
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let silent = silent.local_addr().expect("bound");
        let found = discover(&[silent], soon).await.expect("asked");
        assert!(found.is_empty());
    }
}

//! Speaking by datagram: a ticket from the connection, then each request sent again until its reply
//! is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, ClientError};
use crate::protocol::{
    Call, DatagramKey, MAX_DATAGRAM, Say, SayReply, ServerMessage, Ticket, TicketReply, Who,
    WhoReply, encode_datagram,
};

/// Before a request is sent for the second time; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(150);

/// The longest time between two sendings.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// After so long without a reply, a request is given up.
const PATIENCE: Duration = Duration::from_secs(8);

/// The right to speak by datagram for a session, while that lasts, and for a few minutes at most.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    server: SocketAddr,
    ticket: String,
    key: DatagramKey,
    last_id: u32,
}

impl Client {
    /// A ticket for this session, and a socket to use it.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server takes no datagrams, or none for this connection;
    /// [`ClientError::Connect`] if the system gives no socket.
    pub async fn datagrams(&self) -> Result<Datagrams, ClientError> {
        let reply = self.call_promptly(Ticket {}).await?;
        let Some(ip) = self.address else {
            let text = "a server that is not at the other end of a network";
            return Err(ClientError::Nonsense(text.into()));
        };
        Datagrams::with(reply, ip).await
    }
}

impl Datagrams {
    async fn with(ticket: TicketReply, ip: IpAddr) -> Result<Self, ClientError> {
        let key = DatagramKey::from_secret(&ticket.secret)
            .ok_or_else(|| ClientError::Nonsense("a ticket without its secret".into()))?;
        let server = SocketAddr::new(ip, ticket.port);
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await;
        Ok(Self {
            socket: socket.map_err(|source| failed(server, source))?,
            server,
            ticket: ticket.ticket,
            key,
            last_id: 0,
        })
    }

    /// Says something to a user, or in a room. It is said once, however often it had to be sent.
    ///
    /// # Errors
    /// [`ClientError::TooLong`] if it does not fit in a datagram, [`ClientError::Server`] if the
    /// server says no, [`ClientError::Connect`] if the network does, [`ClientError::TimedOut`] if
    /// there was no answer: then it may have been said or not.
    pub async fn say(&mut self, to: &str, text: &str) -> Result<SayReply, ClientError> {
        let (to, text) = (to.to_owned(), text.to_owned());
        self.call(Say { to, text }).await
    }

    /// The connected users, as far as they fit in a datagram.
    ///
    /// # Errors
    /// Those of [`Self::say`].
    pub async fn who(&mut self) -> Result<WhoReply, ClientError> {
        self.call(Who {}).await
    }

    /// Sends a request until its reply is there.
    async fn call<C: Call>(&mut self, request: C) -> Result<C::Reply, ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let datagram = encode_datagram(&self.key, &self.ticket, id, &request, MAX_DATAGRAM)
            .map_err(|length| ClientError::TooLong {
                length,
                limit: MAX_DATAGRAM,
            })?;
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < deadline {
            let sent = self.socket.send_to(&datagram, self.server).await;
            sent.map_err(|source| failed(self.server, source))?;
            let next = deadline.min(Instant::now() + pause);
            if let Ok(reply) = timeout_at(next, self.reply(id)).await {
                return reply.map_err(|source| failed(self.server, source))??.read();
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        Err(ClientError::TimedOut(PATIENCE))
    }

    /// The reply to request `id`; all else that comes is passed over.
    async fn reply(&self, id: u32) -> io::Result<Result<DatagramReply, ClientError>> {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            // Its signature says who sent it; the address could be another of the server's.
            let (length, _) = self.socket.recv_from(&mut buffer).await?;
            let Some(json) = self.key.open(&buffer[..length]) else {
                continue;
            };
            if let Ok(ServerMessage::Reply(of, reply)) = ServerMessage::parse(json)
                && of == id
            {
                let reply = reply.map(|ok| DatagramReply(ok.get().into()));
                return Ok(reply.map_err(ClientError::Server));
            }
        }
    }
}

/// What `ok` holds.
struct DatagramReply(String);

impl DatagramReply {
    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_str(&self.0).map_err(|error| ClientError::Nonsense(error.to_string()))
    }
}

fn failed(server: SocketAddr, source: io::Error) -> ClientError {
    ClientError::Connect {
        server: server.to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Datagram, ErrorCode, WireError, encode_error, encode_ok};

    const KEY: [u8; 32] = [3; 32];

    /// A client, and the socket of a server that answers only as the test does.
    async fn pair() -> (Datagrams, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_addr().expect("bound");
        let ticket = TicketReply {
            ticket: "t".into(),
            secret: DatagramKey::new(KEY).secret(),
            expires: jiff::Timestamp::now(),
            port: address.port(),
        };
        let client = Datagrams::with(ticket, address.ip()).await;
        (client.expect("a socket"), server)
    }

    async fn request(server: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2000];
        let (length, from) = server.recv_from(&mut buffer).await.expect("a request");
        (buffer[..length].to_vec(), from)
    }

    #[tokio::test]
    async fn a_request_is_sent_again_as_it_was_until_its_reply_is_there() {
        let (mut client, server) = pair().await;
        let saying = tokio::spawn(async move { client.say("bob", "hello").await });
        let (first, from) = request(&server).await;
        assert!(matches!(Datagram::parse(&first), Some(Datagram::Signed(_))));
        let key = DatagramKey::new(KEY);
        let reply = SayReply {
            seq: 41,
            delivered: 1,
        };
        // What is forged, of another request or no reply at all is passed over.
        let forged = DatagramKey::new([4; 32]).sign(&encode_ok(1, &reply));
        let other = key.sign(&encode_ok(2, &reply));
        for datagram in [&forged[..], &other, &first, b"junk"] {
            server.send_to(datagram, from).await.expect("sent");
        }
        assert_eq!(request(&server).await.0, first);
        let reply_datagram = key.sign(&encode_ok(1, &reply));
        server.send_to(&reply_datagram, from).await.expect("sent");
        assert_eq!(saying.await.expect("no panic").expect("said"), reply);
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_an_error_and_the_next_request_has_another_id() {
        let (mut client, server) = pair().await;
        let key = DatagramKey::new(KEY);
        for id in 1..=2 {
            let answering = async {
                let (_, from) = request(&server).await;
                let error = WireError::new(ErrorCode::NotFound, "nobody");
                let reply = key.sign(&encode_error(id, &error));
                server.send_to(&reply, from).await.expect("sent");
            };
            let (said, ()) = tokio::join!(client.say("bob", "hello"), answering);
            let error = said.expect_err("refused");
            assert!(matches!(&error, ClientError::Server(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_given_up_and_what_is_too_long_is_not_sent() {
        let (mut client, server) = pair().await;
        let error = client.say("bob", &"x".repeat(1100)).await;
        let error = error.expect_err("too long");
        assert!(matches!(error, ClientError::TooLong { .. }), "{error}");
        tokio::time::pause();
        let error = client.who().await.expect_err("silent");
        assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
        let first = request(&server).await.0;
        let mut sent = 1;
        let mut buffer = [0; 2000];
        while let Ok((length, _)) = server.try_recv_from(&mut buffer) {
            assert_eq!(buffer[..length], first);
            sent += 1;
        }
        assert!((5..20).contains(&sent), "{sent}");
    }
}

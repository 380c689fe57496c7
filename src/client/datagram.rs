//! Requests by datagram: a ticket from the connection, then each request is sent again until its reply
//! arrives.

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

/// The pause before a request is sent for the second time. It doubles with each repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(150);

/// The longest pause between two repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The time after which a request without a reply fails.
const REPLY_TIMEOUT: Duration = Duration::from_secs(8);

/// The right to send datagrams for a session, until it ends, and for a few minutes at most.
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
    /// [`ClientError::Server`] if the server accepts no datagrams, or none for this connection;
    /// [`ClientError::Connect`] if no socket can be opened.
    pub async fn datagrams(&self) -> Result<Datagrams, ClientError> {
        let reply = self.call_promptly(Ticket {}).await?;
        let Some(ip) = self.address else {
            let text = "a ticket for datagrams on a connection without a network address";
            return Err(ClientError::InvalidReply(text.into()));
        };
        Datagrams::with(reply, ip).await
    }
}

impl Datagrams {
    async fn with(ticket: TicketReply, ip: IpAddr) -> Result<Self, ClientError> {
        let key = DatagramKey::from_secret(&ticket.secret)
            .ok_or_else(|| ClientError::InvalidReply("a ticket with an invalid secret".into()))?;
        let server = SocketAddr::new(ip, ticket.port);
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await;
        Ok(Self {
            socket: socket.map_err(|error| failed(server, error))?,
            server,
            ticket: ticket.ticket,
            key,
            last_id: 0,
        })
    }

    /// Sends a message to a user, or to a room. It is delivered once, even if it is sent several times.
    ///
    /// # Errors
    /// [`ClientError::TooLong`] if it does not fit in a datagram, [`ClientError::Server`] if the
    /// server refuses it, [`ClientError::Connect`] if the network fails, [`ClientError::TimedOut`] if
    /// no reply arrived: then the message may have been delivered.
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

    /// Sends a request until its reply arrives.
    async fn call<C: Call>(&mut self, request: C) -> Result<C::Reply, ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let datagram = encode_datagram(&self.key, &self.ticket, id, &request, MAX_DATAGRAM)
            .map_err(|length| ClientError::TooLong {
                length,
                limit: MAX_DATAGRAM,
            })?;
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < deadline {
            let sent = self.socket.send_to(&datagram, self.server).await;
            sent.map_err(|error| failed(self.server, error))?;
            let next = deadline.min(Instant::now() + pause);
            if let Ok(reply) = timeout_at(next, self.reply(id)).await {
                return reply.map_err(|error| failed(self.server, error))??.read();
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        Err(ClientError::TimedOut(REPLY_TIMEOUT))
    }

    /// The reply to the request `id`. Other datagrams are ignored.
    async fn reply(&self, id: u32) -> io::Result<Result<DatagramReply, ClientError>> {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            // The signature identifies the sender; the server may have several addresses.
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

/// The JSON value of `ok`.
struct DatagramReply(String);

impl DatagramReply {
    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_str(&self.0).map_err(|error| ClientError::InvalidReply(error.to_string()))
    }
}

fn failed(server: SocketAddr, error: io::Error) -> ClientError {
    ClientError::Connect {
        server: server.to_string(),
        error,
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
    async fn a_request_is_repeated_unchanged_until_its_reply_arrives() {
        let (mut client, server) = pair().await;
        let saying = tokio::spawn(async move { client.say("bob", "hello").await });
        let (first, from) = request(&server).await;
        assert!(matches!(Datagram::parse(&first), Some(Datagram::Signed(_))));
        let key = DatagramKey::new(KEY);
        let reply = SayReply {
            seq: 41,
            delivered: 1,
        };
        // Forged replies, replies to other requests and other datagrams are ignored.
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
    async fn a_refusal_is_an_error_and_the_next_request_has_another_id() {
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
    async fn a_silent_server_times_out_and_a_long_request_is_not_sent() {
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

//! A client of datagrams that shares no code with haul.

use std::net::SocketAddr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::datagrams::PATIENCE;
use crate::harness::RawClient;

/// A client that shares no code with haul.
pub(crate) struct RawDatagrams {
    pub(super) socket: UdpSocket,
    pub(super) server: SocketAddr,
    pub(super) ticket: String,
    pub(super) secret: Vec<u8>,
}

impl RawDatagrams {
    /// A client without a valid ticket.
    pub(super) async fn stranger(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            socket,
            server,
            ticket: "0123456789abcdef".into(),
            secret: vec![7; 32],
        }
    }

    /// The holder of a ticket for a session.
    pub(crate) async fn new(session: &mut RawClient, server: SocketAddr) -> Self {
        let ticket = session.ok(json!({"cmd": "ticket"})).await;
        assert_eq!(ticket["port"], server.port());
        let text = |member: &str| ticket[member].as_str().expect(member).to_owned();
        let secret = text("secret");
        assert_eq!(secret.len(), 64);
        Self {
            ticket: text("ticket"),
            secret: HEXLOWER.decode(secret.as_bytes()).expect("hex"),
            ..Self::stranger(server).await
        }
    }

    /// The datagram of a request, padded to `length`.
    pub(crate) fn datagram(&self, mut request: Value, length: usize) -> Vec<u8> {
        request["ticket"] = self.ticket.clone().into();
        let missing = length.checked_sub(self.sign(&request).len() + r#","pad":"""#.len());
        if let Some(missing) = missing {
            request["pad"] = ".".repeat(missing).into();
        }
        self.sign(&request)
    }

    pub(super) fn sign(&self, json: &Value) -> Vec<u8> {
        let mut bytes = json.to_string().into_bytes();
        let hmac = self.hmac(&bytes);
        bytes.push(b'\n');
        bytes.extend(HEXLOWER.encode(&hmac).into_bytes());
        bytes
    }

    pub(super) fn hmac(&self, json: &[u8]) -> Vec<u8> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key");
        hmac.update(json);
        hmac.finalize().into_bytes().to_vec()
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        let sent = self.socket.send_to(datagram, self.server).await;
        assert_eq!(sent.expect("the system takes it"), datagram.len());
    }

    /// The bytes of the next datagram.
    pub(super) async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2000];
        let received = timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("the server answers").expect("a datagram");
        assert_eq!(from, self.server);
        buffer.truncate(length);
        buffer
    }

    /// The JSON of a signed datagram.
    pub(super) fn open(&self, datagram: &[u8]) -> Value {
        let (json, signature) = datagram.split_at(datagram.len() - 65);
        assert_eq!(signature[0], b'\n');
        let hmac = HEXLOWER_PERMISSIVE.decode(&signature[1..]).expect("hex");
        assert_eq!(hmac, self.hmac(json), "{}", json.escape_ascii());
        serde_json::from_slice(json).expect("JSON")
    }

    /// Sends a request and returns its reply, which must not be longer.
    pub(crate) async fn call(&self, request: Value) -> Value {
        let datagram = self.datagram(request, 600);
        self.send(&datagram).await;
        let reply = self.receive().await;
        assert!(reply.len() <= datagram.len());
        self.open(&reply)
    }
}

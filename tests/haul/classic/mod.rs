//! The classic dialect: the bytes of older clients, against a server that accepts them on its
//! common port.

mod document;
mod ends;
mod files;
mod orders;
mod program;
mod registering;

use std::time::Duration;

use haul::protocol::{Algorithm, Digest};
use haul::server::{Peer, Shutdown};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{PASSWORD, TestServer};

/// The longest time that a test waits.
const PATIENCE: Duration = Duration::from_mins(1);

/// A client of the classic dialect that shares no code with haul.
struct Classic<S = TcpStream> {
    stream: S,
}

/// A request, as bytes.
fn frame(json: &Value) -> Vec<u8> {
    let json = json.to_string();
    let length = i32::try_from(json.len()).expect("a short request");
    [&length.to_le_bytes()[..], json.as_bytes()].concat()
}

/// The hex MD5 of some bytes.
fn md5(bytes: &[u8]) -> String {
    let digest = Digest::compute(Algorithm::Md5, bytes).to_string();
    digest.strip_prefix("md5:").expect("an MD5").to_owned()
}

impl TestServer {
    /// A connection on which nothing has been sent yet.
    async fn connect_classic(&self) -> Classic {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket option");
        Classic { stream }
    }

    /// A session of `user`.
    async fn log_in_classic(&self, user: &str) -> Classic {
        let mut client = self.connect_classic().await;
        client.log_in(user).await;
        client
    }

    /// A connection without a socket, through a pipe that holds `bytes` bytes.
    fn pipe_classic(&self, bytes: usize, peer: Peer) -> Classic<DuplexStream> {
        let (near, far) = duplex(bytes);
        let server = self.server.clone();
        let (reader, writer) = tokio::io::split(far);
        tokio::spawn(async move {
            server
                .serve(reader, writer, peer, Shutdown::default())
                .await;
        });
        Classic { stream: near }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Classic<S> {
    async fn send(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("the server reads").expect("open");
    }

    /// The next reply; `None` if the server has closed instead.
    async fn next(&mut self) -> Option<Value> {
        let reading = async {
            let length = self.stream.read_i32_le().await.ok()?;
            let mut json = vec![0; usize::try_from(length).expect("a length")];
            self.stream.read_exact(&mut json).await.ok()?;
            Some(serde_json::from_slice(&json).expect("JSON"))
        };
        timeout(PATIENCE, reading).await.expect("in time")
    }

    /// The `res` of the next reply.
    async fn res(&mut self) -> String {
        let reply = self.next().await.expect("a reply");
        let members = reply.as_object().expect("an object");
        assert_eq!(members.len(), 1, "{reply} is of no download");
        members["res"].as_str().expect("a text").to_owned()
    }

    /// Sends a request and returns the `res` of its reply.
    async fn ask(&mut self, request: Value) -> String {
        self.send(&frame(&request)).await;
        self.res().await
    }

    /// Sends a typed line; returns the `res` of the reply.
    async fn order(&mut self, line: &str) -> String {
        self.ask(json!({"cmd": line})).await
    }

    async fn log_in(&mut self, user: &str) {
        let login = json!({"cmd": "login", "user": user, "psd": PASSWORD});
        let res = self.ask(login).await;
        assert_eq!(res, format!("logged in as {user}; you are in /"));
    }

    /// Sends a file after its request; returns the `res` of the reply.
    async fn put(&mut self, name: &str, content: &[u8]) -> String {
        let request = json!({
            "cmd": format!("put \"{name}\""), "filename": name, "size": content.len(),
        });
        self.send(&[&frame(&request)[..], content].concat()).await;
        self.res().await
    }

    /// The bytes of an announced file.
    async fn body(&mut self, head: &Value) -> Vec<u8> {
        let size = head["size"]
            .as_u64()
            .unwrap_or_else(|| panic!("no file: {head}"));
        let mut body = vec![0; usize::try_from(size).expect("small")];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut body)).await;
        read.expect("in time").expect("all of it");
        body
    }

    /// Gets a file, and checks its MD5.
    async fn get(&mut self, line: &str) -> Vec<u8> {
        self.send(&frame(&json!({"cmd": line}))).await;
        let head = self.next().await.expect("a reply");
        let body = self.body(&head).await;
        assert_eq!(head["file_hash"], md5(&body), "{head}");
        body
    }

    /// The final message of a server that closes the connection.
    async fn final_message(&mut self) -> Option<String> {
        let last = self.next().await?;
        assert_eq!(self.next().await, None, "it closes");
        Some(last["res"].as_str().expect("a text").to_owned())
    }
}

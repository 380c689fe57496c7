//! A server under test, and a client of raw frames that shares no code with haul.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haul::accounts::{Accounts, HashingCost, NewUser, UserChange, UserName};
use haul::config::Config;
use haul::messages::Messages;
use haul::protocol::Secret;
use haul::server::{self, Server};
use haul::storage::{SpaceLimits, Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The password of every user that [`TestServer`] makes.
pub(crate) const PASSWORD: &str = "correct horse";

/// The longest time that a test waits; a hang is a failure that names what was awaited.
const PATIENCE: Duration = Duration::from_mins(1);

/// Polls until `look` returns a value; panics after the longest wait.
pub(crate) async fn soon<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}

/// A server on a free port of the loopback interface, with its own data directory.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) accounts: Accounts,
    pub(crate) server: Server,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    data: TempDir,
}

impl TestServer {
    /// Starts with the default settings, any number of connections, and the users `alice` and
    /// `bob`.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with the settings that `change` sets.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let server = Self::start_on(data, change).await;
        server.add_user("alice", SpaceLimits::default()).await;
        server.add_user("bob", SpaceLimits::default()).await;
        server
    }

    async fn start_on(data: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        // All connections of tests come from one address.
        config.limits.sessions_per_address = 0;
        config.server.data = data.path().to_owned();
        change(&mut config);
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let bound = server::bind(anywhere, config.server.datagrams).await;
        Self::start_at(bound.expect("a free port"), data, config).await
    }

    /// Starts on existing sockets.
    pub(crate) async fn start_at(
        (listener, datagrams): (TcpListener, Option<UdpSocket>),
        data: TempDir,
        config: Config,
    ) -> Self {
        let accounts = Accounts::open(data.path()).await.expect("accounts");
        let accounts = accounts.with_hashing_cost(HashingCost::MIN);
        let store = Store::open(data.path()).expect("a store");
        let messages = Messages::open(data.path()).await.expect("messages");
        let mut server = Server::new(accounts.clone(), store, messages, config);
        if let Some(socket) = datagrams {
            server = server.with_datagrams(socket);
        }
        server.reload_tls().await.expect("a certificate");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(listener, shutdown).await }
        });
        Self {
            address,
            accounts,
            server,
            shutdown,
            running,
            data,
        }
    }

    pub(crate) async fn add_user(&self, name: &str, limits: SpaceLimits) {
        let name: UserName = name.parse().expect("a user name");
        let password = Secret::new(PASSWORD.into());
        let new = NewUser {
            admin: false,
            limits,
        };
        self.accounts
            .add_user(&name, &password, new)
            .await
            .expect("a new user");
    }

    /// Adds a user with the admin right.
    pub(crate) async fn add_admin(&self, name: &str) {
        self.add_user(name, SpaceLimits::default()).await;
        let name: UserName = name.parse().expect("a user name");
        let change = UserChange {
            admin: Some(true),
            ..UserChange::default()
        };
        self.accounts
            .set_user(&name, change)
            .await
            .expect("changed");
    }

    pub(crate) fn home(&self, user: &str) -> PathBuf {
        self.data.path().join("homes").join(user)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The number of entries in staging.
    pub(crate) fn staged(&self) -> usize {
        std::fs::read_dir(self.data.path().join("staging"))
            .expect("staging")
            .count()
    }

    /// The bytes of the entries in staging.
    pub(crate) fn staged_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.data.path().join("staging")).expect("staging");
        // An upload may end meanwhile.
        let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        sizes.sum()
    }

    /// A connection on which nothing has been sent yet.
    pub(crate) async fn connect(&self) -> RawClient {
        RawClient::connect(self.address).await
    }

    /// A session of `user`.
    pub(crate) async fn log_in(&self, user: &str) -> RawClient {
        let mut client = self.connect().await;
        let login = json!({"cmd": "login", "user": user, "password": PASSWORD});
        client.ok(login).await;
        client
    }

    /// Starts the shutdown of the server, without waiting for it.
    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Stops the server, and starts another one on the same data.
    pub(crate) async fn restart(self) -> Self {
        let data = self.stop().await;
        Self::start_on(data, |_| {}).await
    }

    /// Stops the server and waits until its last session has ended.
    pub(crate) async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        timeout(PATIENCE, self.running)
            .await
            .expect("the server stops")
            .expect("no panic");
        self.data
    }
}

/// A frame from the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Received {
    Control(Value),
    Data { stream: u32, chunk: Vec<u8> },
    Closed,
}

/// A client made of a socket, a length of four bytes and `serde_json`.
pub(crate) struct RawClient<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) events: Vec<Value>,
}

/// A control frame, as bytes.
pub(crate) fn control(json: &Value) -> Vec<u8> {
    frame(json.to_string().as_bytes())
}

/// A data frame, as bytes.
pub(crate) fn data(stream: u32, chunk: &[u8]) -> Vec<u8> {
    let mut payload = vec![1];
    payload.extend(stream.to_be_bytes());
    payload.extend(chunk);
    frame(&payload)
}

/// Any payload as a frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(payload);
    bytes
}

/// The receiving direction.
pub(crate) struct RawReceiver<R>(R);

impl<R: AsyncRead + Unpin> RawReceiver<R> {
    pub(crate) async fn receive(&mut self) -> Received {
        timeout(PATIENCE, self.receive_frame())
            .await
            .expect("the server answers")
    }

    async fn receive_frame(&mut self) -> Received {
        let Ok(length) = self.0.read_u32().await else {
            return Received::Closed;
        };
        let mut payload = vec![0; length as usize];
        if self.0.read_exact(&mut payload).await.is_err() {
            return Received::Closed;
        }
        match payload[0] {
            b'{' => Received::Control(serde_json::from_slice(&payload).expect("JSON")),
            1 => Received::Data {
                stream: u32::from_be_bytes(payload[1..5].try_into().expect("four bytes")),
                chunk: payload.split_off(5),
            },
            mark => panic!("a payload that starts with {mark}"),
        }
    }
}

impl RawClient {
    pub(crate) async fn connect(address: impl ToSocketAddrs) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        Self::new(stream)
    }

    /// The two directions, to send and receive at the same time.
    pub(crate) fn split(&mut self) -> (RawReceiver<ReadHalf<'_>>, WriteHalf<'_>) {
        let (reader, writer) = self.stream.split();
        (RawReceiver(reader), writer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawClient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            events: Vec::new(),
        }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let sent = timeout(PATIENCE, sending).await;
        sent.expect("the server reads")
            .expect("the connection is open");
    }

    pub(crate) async fn send(&mut self, json: Value) {
        self.send_bytes(&control(&json)).await;
    }

    pub(crate) async fn receive(&mut self) -> Received {
        RawReceiver(&mut self.stream).receive().await
    }

    /// The next event that has not been returned yet.
    pub(crate) async fn event(&mut self) -> Value {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        match self.receive().await {
            Received::Control(json) if json.get("event").is_some() => json,
            other => panic!("expected an event, not {other:?}"),
        }
    }

    /// The next control frame that is not an event.
    pub(crate) async fn reply(&mut self) -> Value {
        loop {
            match self.receive().await {
                Received::Control(json) if json.get("event").is_some() => self.events.push(json),
                Received::Control(json) => return json,
                other => panic!("expected a reply, not {other:?}"),
            }
        }
    }

    /// Sends a request and returns its reply.
    pub(crate) async fn call(&mut self, request: Value) -> Value {
        self.send(request).await;
        self.reply().await
    }

    /// Sends a request that must succeed; returns its `ok`.
    pub(crate) async fn ok(&mut self, request: Value) -> Value {
        let mut reply = self.call(request.clone()).await;
        assert!(reply["ok"].is_object(), "{request} was answered {reply}");
        reply["ok"].take()
    }

    /// Sends a request that must fail; returns the code and the error.
    pub(crate) async fn error(&mut self, request: Value) -> (String, Value) {
        let mut reply = self.call(request.clone()).await;
        let code = reply["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{request} was answered {reply}"));
        (code.to_owned(), reply["error"].take())
    }

    /// Asserts that a request fails with `code`.
    pub(crate) async fn fails(&mut self, request: Value, code: &str) {
        let (actual, error) = self.error(request.clone()).await;
        assert_eq!(actual, code, "{request} was answered {error}");
    }

    /// Puts a complete file; returns the final reply.
    pub(crate) async fn put(&mut self, path: &str, content: &[u8]) -> Value {
        let mut bytes =
            control(&json!({"id": 900, "cmd": "put", "path": path, "size": content.len()}));
        for chunk in content.chunks(100_000) {
            bytes.extend(data(900, chunk));
        }
        bytes.extend(control(&json!({"id": 900, "cmd": "end"})));
        self.send_bytes(&bytes).await;
        self.final_reply(900).await
    }

    /// The final reply to request `id`, after its `begin`.
    pub(crate) async fn final_reply(&mut self, id: u32) -> Value {
        loop {
            let reply = self.reply().await;
            if reply["id"] == id && reply.get("begin").is_none() {
                return reply;
            }
        }
    }

    /// Sends a `get` request; returns the received bytes and the final reply.
    pub(crate) async fn get(&mut self, request: Value) -> (Vec<u8>, Value) {
        self.send(request).await;
        let mut content = Vec::new();
        loop {
            match self.receive().await {
                Received::Data { chunk, .. } => content.extend(chunk),
                Received::Control(json) if json.get("begin").is_some() => {}
                Received::Control(json) => return (content, json),
                Received::Closed => panic!("closed in the middle of a get"),
            }
        }
    }

    /// Asserts that the server closes the connection after at most one refusal, which is returned.
    pub(crate) async fn closes(&mut self) -> Option<Value> {
        let refusal = match self.receive().await {
            Received::Closed => return None,
            Received::Control(json) => json,
            data @ Received::Data { .. } => panic!("expected a refusal, not {data:?}"),
        };
        assert!(
            refusal.get("id").is_none(),
            "a refusal has no id: {refusal}"
        );
        assert_eq!(self.receive().await, Received::Closed);
        Some(refusal)
    }

    /// Asserts that the server refuses with `code` and closes the connection.
    pub(crate) async fn refuses(&mut self, code: &str) {
        let refusal = self.closes().await.expect("a refusal before the close");
        assert_eq!(refusal["error"]["code"], code, "{refusal}");
    }
}

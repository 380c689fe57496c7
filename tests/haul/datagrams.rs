//! Datagrams, with a client made of a socket, HMAC-SHA256 and `serde_json`.

use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use haul::client::{Client, Trust};
use haul::config::Config;
use haul::protocol::{ErrorCode, Secret};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use tokio_util::sync::CancellationToken;

use crate::daemon::ServerProcess;
use crate::harness::{PASSWORD, RawClient, Received, TestServer, soon};
use crate::requirements;

const PATIENCE: Duration = Duration::from_mins(1);

/// A client that shares no code with haul.
pub(crate) struct RawDatagrams {
    socket: UdpSocket,
    server: SocketAddr,
    ticket: String,
    secret: Vec<u8>,
}

impl RawDatagrams {
    /// A client without a valid ticket.
    async fn stranger(server: SocketAddr) -> Self {
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

    fn sign(&self, json: &Value) -> Vec<u8> {
        let mut bytes = json.to_string().into_bytes();
        let hmac = self.hmac(&bytes);
        bytes.push(b'\n');
        bytes.extend(HEXLOWER.encode(&hmac).into_bytes());
        bytes
    }

    fn hmac(&self, json: &[u8]) -> Vec<u8> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key");
        hmac.update(json);
        hmac.finalize().into_bytes().to_vec()
    }

    pub(crate) async fn send(&self, datagram: &[u8]) {
        let sent = self.socket.send_to(datagram, self.server).await;
        assert_eq!(sent.expect("the system takes it"), datagram.len());
    }

    /// The bytes of the next datagram.
    async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 2000];
        let received = timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("the server answers").expect("a datagram");
        assert_eq!(from, self.server);
        buffer.truncate(length);
        buffer
    }

    /// The JSON of a signed datagram.
    fn open(&self, datagram: &[u8]) -> Value {
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

fn ack(id: u32, seq: u64) -> Value {
    json!({"id": id, "cmd": "ack", "seq": seq})
}

/// Waits until the server has dropped `number` datagrams.
async fn dropped(server: &TestServer, number: u64) {
    let look = async || (server.server.dropped_datagrams() >= number).then_some(());
    soon("a datagram that is dropped", look).await;
    assert_eq!(server.server.dropped_datagrams(), number);
}

#[tokio::test]
async fn the_answer_to_a_search_has_the_version_and_the_port_but_no_host_name() {
    let server = TestServer::start().await;
    let answer = search(&server).await;
    assert!(
        answer["server"]
            .as_str()
            .expect("text")
            .starts_with("haul/")
    );
    assert_eq!(answer["name"], "");
    assert_eq!(answer["protocol"], 1);
    assert_eq!(answer["port"], server.address.port());
    server.stop().await;
}

#[tokio::test]
async fn the_answer_to_a_search_has_the_host_name_if_it_is_announced() {
    let server = TestServer::start_with(|config| config.server.announce_name = true).await;
    let name = rustix::system::uname();
    let name: String = name.nodename().to_string_lossy().chars().take(64).collect();
    assert_eq!(search(&server).await["name"], name);
    server.stop().await;
}

/// The answer to a search for servers.
async fn search(server: &TestServer) -> Value {
    let client = RawDatagrams::stranger(server.address).await;
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    client.send(question.as_bytes()).await;
    serde_json::from_slice(&client.receive().await).expect("JSON")
}

#[tokio::test]
async fn no_answer_to_a_search_is_longer_than_the_search() {
    let server = TestServer::start().await;
    let client = RawDatagrams::stranger(server.address).await;
    let shortest = json!({"cmd": "hello", "pad": ""}).to_string().len();
    let mut unanswered = 0;
    for pad in (0..240).step_by(15) {
        let question = json!({"cmd": "hello", "pad": ".".repeat(pad)}).to_string();
        client.send(question.as_bytes()).await;
        let mut buffer = [0; 2000];
        // Dropped searches are counted once they are processed.
        let length = tokio::select! {
            received = client.socket.recv_from(&mut buffer) => received.expect("an answer").0,
            () = dropped(&server, unanswered + 1) => {
                unanswered += 1;
                0
            }
        };
        assert!(length <= question.len());
        assert_eq!(
            length == 0,
            question.len() < answer_length(&server),
            "{pad}"
        );
    }
    assert!(unanswered > 0 && shortest < answer_length(&server));
    server.stop().await;
}

/// The length of the answer to a search.
fn answer_length(server: &TestServer) -> usize {
    let port = server.address.port();
    let answer =
        json!({"server": haul::server::SERVER_VERSION, "name": "", "protocol": 1, "port": port});
    answer.to_string().len()
}

#[tokio::test]
async fn answers_to_a_flood_of_searches_are_rate_limited() {
    let server = TestServer::start().await;
    let client = RawDatagrams::stranger(server.address).await;
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    let mut answers = 0;
    let mut buffer = [0; 2000];
    while server.server.dropped_datagrams() < 100 {
        client.send(question.as_bytes()).await;
        tokio::task::yield_now().await;
        while client.socket.try_recv_from(&mut buffer).is_ok() {
            answers += 1;
        }
    }
    assert!((1..=100).contains(&answers), "{answers}");
    server.stop().await;
}

fn offers_datagrams(hello: &Value) -> bool {
    let features = hello["features"].as_array().expect("features");
    features.contains(&json!("datagrams"))
}

#[tokio::test]
async fn hello_reports_whether_the_server_accepts_datagrams() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let hello = session.ok(json!({"cmd": "hello"})).await;
    assert!(offers_datagrams(&hello), "{hello}");
    server.stop().await;

    let server = TestServer::start_with(|config| config.server.datagrams = false).await;
    let mut session = server.log_in("alice").await;
    let hello = session.ok(json!({"cmd": "hello"})).await;
    assert!(!offers_datagrams(&hello), "{hello}");
    session.fails(json!({"cmd": "ticket"}), "unsupported").await;
    let visitor = json!({"cmd": "ticket"});
    server.connect().await.fails(visitor, "not_logged_in").await;
    server.stop().await;
}

#[tokio::test]
async fn a_signed_request_gets_a_signed_reply_with_its_id() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let reply = client.call(ack(7, 1)).await;
    assert_eq!(reply, json!({"id": 7, "ok": {}}));
    let reply = client
        .call(json!({"id": 8, "cmd": "rm", "path": "/"}))
        .await;
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&json!(8), &json!("bad_request"))
    );
    assert_eq!(reply["error"]["field"], "cmd");
    server.stop().await;
}

#[tokio::test]
async fn no_reply_is_longer_than_its_request_whatever_its_length() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let mut lengths = vec![0];
    for length in (0..=1200).step_by(7) {
        for mut request in [
            json!({"cmd": "ack"}),
            json!({"cmd": "who"}),
            json!({"cmd": "x"}),
            ack(0, 1),
        ] {
            request["id"] = lengths.len().into();
            let datagram = client.datagram(request, length);
            lengths.push(datagram.len());
            client.send(&datagram).await;
        }
        // The last of the four always fits its reply; replies to others may follow it.
        loop {
            let reply = client.receive().await;
            let id = client.open(&reply)["id"].as_u64().expect("an id");
            let id = usize::try_from(id).expect("an index");
            let asked = lengths[id];
            assert!(reply.len() <= asked, "{} for {asked}", reply.len());
            if id + 1 == lengths.len() {
                break;
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_forged_datagram_or_one_without_a_ticket_is_dropped_and_counted() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let sound = client.datagram(ack(1, 1), 0);
    let stranger = RawDatagrams::stranger(server.address).await;
    let mut forged = vec![
        b"junk".to_vec(),
        Vec::new(),
        stranger.datagram(ack(1, 1), 300),
        json!({"ticket": client.ticket, "id": 1, "cmd": "ack", "seq": 1})
            .to_string()
            .into_bytes(),
        // A truncated datagram, and one over the size limit.
        sound[..sound.len() - 1].to_vec(),
        client.datagram(ack(1, 1), 1201),
    ];
    // A client that knows the id of a ticket but not its secret.
    let mut thief = RawDatagrams::stranger(server.address).await;
    thief.ticket.clone_from(&client.ticket);
    forged.push(thief.datagram(ack(1, 1), 300));
    for bit in [0, 100, 8 * (sound.len() - 65), 8 * sound.len() - 1] {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        forged.push(flipped);
    }
    for (number, datagram) in forged.iter().enumerate() {
        client.send(datagram).await;
        dropped(&server, number as u64 + 1).await;
    }
    client.send(&sound).await;
    let reply = client.open(&client.receive().await);
    assert_eq!(reply, json!({"id": 1, "ok": {}}), "the first answer of all");
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_reply_and_an_old_or_changed_one_gets_none() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    let first = client.datagram(ack(100, 1), 0);
    client.send(&first).await;
    let reply = client.receive().await;
    for _ in 0..5 {
        client.send(&first).await;
        assert_eq!(client.receive().await, reply);
    }
    // Different content with the same id, and ids that are too old.
    client.send(&client.datagram(ack(100, 2), 0)).await;
    dropped(&server, 1).await;
    client.send(&client.datagram(ack(36, 1), 0)).await;
    dropped(&server, 2).await;
    // The server has executed the request that arrived late.
    assert_eq!(client.call(ack(37, 1)).await["id"], 37);
    // A replayed datagram gets the same reply, which is no longer than the request.
    let thief = RawDatagrams::stranger(server.address).await;
    thief.send(&first).await;
    assert_eq!(thief.receive().await, reply);
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_ends_with_its_session() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    assert!(client.call(ack(1, 1)).await["ok"].is_object());
    session.ok(json!({"cmd": "quit"})).await;
    client.send(&client.datagram(ack(2, 1), 0)).await;
    dropped(&server, 1).await;
    // Even an earlier request gets no reply any more.
    client.send(&client.datagram(ack(1, 1), 600)).await;
    dropped(&server, 2).await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_ends_when_the_connection_is_cut() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    drop(session);
    let mut id = 0;
    soon("the end of the session", async || {
        id += 1;
        client.send(&client.datagram(ack(id, 1), 0)).await;
        (server.server.dropped_datagrams() > 0).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_over_the_limit_of_a_session_ends_the_oldest() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let mut holders = Vec::new();
    for _ in 0..5 {
        holders.push(RawDatagrams::new(&mut session, server.address).await);
    }
    let oldest = holders.remove(0);
    oldest.send(&oldest.datagram(ack(1, 1), 0)).await;
    dropped(&server, 1).await;
    for holder in holders {
        assert_eq!(holder.call(ack(1, 1)).await["id"], 1);
    }
    server.stop().await;
}

#[tokio::test]
async fn datagrams_of_denied_networks_are_dropped() {
    let server = TestServer::start().await;
    let client = RawDatagrams::stranger(server.address).await;
    let mut config = Config::clone(&server.server.config());
    config.network.deny = vec!["127.0.0.0/8".parse().expect("a network")];
    let _ = server.server.reload(&config);
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    client.send(question.as_bytes()).await;
    dropped(&server, 1).await;
    server.stop().await;
}

fn say(id: u32, to: &str, text: &str) -> Value {
    json!({"id": id, "cmd": "say", "to": to, "text": text})
}

/// The next message event of a session.
async fn next_event(session: &mut RawClient) -> Value {
    if !session.events.is_empty() {
        return session.events.remove(0);
    }
    match session.receive().await {
        Received::Control(event) if event["event"] == "message" => event,
        other => panic!("expected a message, not {other:?}"),
    }
}

#[tokio::test]
async fn a_repeated_message_by_datagram_is_delivered_once() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let datagram = client.datagram(say(1, "bob", "hello"), 0);
    for _ in 0..10 {
        client.send(&datagram).await;
    }
    let reply = client.receive().await;
    let sent = client.open(&reply);
    assert!(sent["id"] == 1 && sent["ok"]["seq"].is_u64(), "{sent}");
    client.send(&datagram).await;
    assert_eq!(client.receive().await, reply);
    let second = client.call(say(2, "bob", "again")).await;
    assert!(second["ok"]["seq"].as_u64() > sent["ok"]["seq"].as_u64());
    for (text, reply) in [("hello", sent), ("again", second)] {
        let event = next_event(&mut bob).await;
        assert_eq!(
            (&event["from"], &event["text"]),
            (&json!("alice"), &json!(text))
        );
        assert_eq!(event["seq"], reply["ok"]["seq"]);
    }
    let history = bob.ok(json!({"cmd": "history", "with": "alice"})).await;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2));
    server.stop().await;
}

#[tokio::test]
async fn a_say_by_datagram_is_refused_with_the_same_codes_as_over_the_connection() {
    let server = TestServer::start_with(|config| config.limits.messages_per_user = 1).await;
    let mut alice = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let nobody = client.call(say(1, "nobody", "hello")).await;
    assert_eq!(nobody["error"]["code"], "not_found");
    let elsewhere = client.call(say(2, "#ops", "hello")).await;
    assert_eq!(elsewhere["error"]["code"], "not_found");
    // The message rate counts datagrams and connections of a user together.
    let mut id = 2;
    let limited = loop {
        id += 1;
        let reply = client.call(say(id, "bob", "hello")).await;
        if reply.get("error").is_some() {
            break reply;
        }
    };
    assert_eq!(limited["error"]["code"], "limited");
    assert!(limited["error"]["retry_after_ms"].is_u64());
    let over_the_connection = json!({"cmd": "say", "to": "bob", "text": "hello"});
    alice.fails(over_the_connection, "limited").await;
    server.stop().await;
}

#[tokio::test]
async fn who_by_datagram_lists_the_users_that_fit_in_the_reply() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let _bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let all = client.call(json!({"id": 1, "cmd": "who"})).await;
    let names: Vec<_> = all["ok"]["users"]
        .as_array()
        .expect("users")
        .iter()
        .map(|present| &present["user"])
        .collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(all["ok"].get("more"), None);
    client
        .send(&client.datagram(json!({"id": 2, "cmd": "who"}), 0))
        .await;
    let none = client.open(&client.receive().await);
    assert_eq!(none["ok"], json!({"users": [], "more": true}));
    server.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_to_the_last_address_of_the_holder_until_it_is_acknowledged() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    // The address of the holder is unknown before its first datagram.
    bob.ok(json!({"cmd": "say", "to": "alice", "text": "too early"}))
        .await;
    assert_eq!(next_event(&mut alice).await["text"], "too early");
    for id in 1..=4 {
        assert!(client.call(ack(id, 1)).await["ok"].is_object());
    }
    let sent = json!({"cmd": "say", "to": "alice", "text": "hello"});
    let seq = bob.ok(sent).await["seq"].as_u64().expect("a seq");
    let first = client.receive().await;
    let event = client.open(&first);
    assert_eq!(
        (&event["event"], &event["seq"]),
        (&json!("message"), &json!(seq))
    );
    assert_eq!(
        (&event["from"], &event["text"]),
        (&json!("bob"), &json!("hello"))
    );
    assert_eq!(client.receive().await, first, "it was not acknowledged");
    assert_eq!(
        next_event(&mut alice).await["text"],
        "hello",
        "the session has it, too"
    );
    let request = client.datagram(ack(5, seq), 600);
    client.send(&request).await;
    // Copies sent before the acknowledgement may arrive after it.
    while client.receive().await == first {}
    let more = json!({"cmd": "say", "to": "alice", "text": "more"});
    bob.ok(more).await;
    let next = client.open(&client.receive().await);
    assert_eq!(next["text"], "more", "the other one is not sent again");
    server.stop().await;
}

#[tokio::test]
async fn a_replayed_datagram_does_not_redirect_messages() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let home = RawDatagrams::new(&mut alice, server.address).await;
    let mut away = RawDatagrams::stranger(server.address).await;
    away.ticket.clone_from(&home.ticket);
    away.secret.clone_from(&home.secret);
    assert!(home.call(ack(1, 1)).await["ok"].is_object());
    let spoken = away.datagram(ack(2, 1), 1200);
    away.send(&spoken).await;
    away.receive().await;
    // An eavesdropper replays a datagram from another address.
    let thief = RawDatagrams::stranger(server.address).await;
    thief.send(&spoken).await;
    thief.receive().await;
    bob.ok(json!({"cmd": "say", "to": "alice", "text": "hello"}))
        .await;
    assert_eq!(away.open(&away.receive().await)["text"], "hello");
    let mut buffer = [0; 2000];
    for other in [&home, &thief] {
        let nothing = other.socket.try_recv_from(&mut buffer);
        assert!(nothing.is_err(), "{nothing:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_server_sends_an_address_no_more_bytes_than_it_received() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let request = client.datagram(ack(1, 1), 500);
    client.send(&request).await;
    let mut received = client.receive().await.len();
    for _ in 0..10 {
        let text = "x".repeat(200);
        bob.ok(json!({"cmd": "say", "to": "alice", "text": text}))
            .await;
    }
    received += client.receive().await.len();
    // After everything sent before; the messages wait for their next transmission.
    let last = client.datagram(ack(2, 1), 0);
    client.send(&last).await;
    loop {
        let datagram = client.receive().await;
        received += datagram.len();
        if client.open(&datagram)["id"] == 2 {
            break;
        }
    }
    assert!(received <= request.len() + last.len(), "{received}");
    server.stop().await;
}

#[tokio::test]
async fn a_message_too_long_for_a_datagram_is_sent_over_the_connection_only() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let mut bob = server.log_in("bob").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    for id in 1..=3 {
        client.call(ack(id, 1)).await;
    }
    for text in ["x".repeat(1200), "short".into()] {
        bob.ok(json!({"cmd": "say", "to": "alice", "text": text}))
            .await;
        assert_eq!(next_event(&mut alice).await["text"], text);
    }
    assert_eq!(client.open(&client.receive().await)["text"], "short");
    server.stop().await;
}

#[tokio::test]
async fn a_network_error_does_not_end_the_receiver() {
    // A connected socket gets an error if its peer is gone.
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let peer_address = peer.local_addr().expect("bound");
    let data = tempfile::tempdir().expect("a directory");
    let anywhere = "127.0.0.1:0".parse().expect("an address");
    let (listener, socket) = haul::server::bind(anywhere, true).await.expect("a port");
    let socket = socket.expect("it was asked for");
    socket.connect(peer_address).await.expect("an address");
    let address = listener.local_addr().expect("bound");
    drop(peer);
    socket.send(b"is anybody there?").await.expect("sent");
    let server = TestServer::start_at((listener, Some(socket)), data, Config::default()).await;
    let socket = UdpSocket::bind(peer_address).await.expect("it was free");
    let client = RawDatagrams {
        socket,
        ..RawDatagrams::stranger(address).await
    };
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    client.send(question.as_bytes()).await;
    let answer: Value = serde_json::from_slice(&client.receive().await).expect("JSON");
    assert_eq!(answer["port"], address.port());
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_junk_does_not_affect_sessions_and_tickets() {
    let server = TestServer::start().await;
    let mut alice = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut alice, server.address).await;
    let stop = CancellationToken::new();
    let mut junk = vec![vec![b'{'; 1200], Vec::new(), vec![0xff; 1201]];
    let stranger = RawDatagrams::stranger(server.address).await;
    junk.push(stranger.datagram(say(1, "alice", "junk"), 1200));
    let mut thief = RawDatagrams::stranger(server.address).await;
    thief.ticket.clone_from(&client.ticket);
    junk.push(thief.datagram(say(1, "alice", "junk"), 1200));
    let flood = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut sent = 0_u64;
            while !stop.is_cancelled() {
                for datagram in &junk {
                    thief.send(datagram).await;
                    sent += 1;
                }
                tokio::task::yield_now().await;
            }
            sent
        }
    });
    let mut id = 0;
    let content = vec![7; 100_000];
    soon("ten thousand datagrams that are dropped", async || {
        alice.put("a.bin", &content).await;
        assert_eq!(
            alice
                .get(json!({"cmd": "get", "path": "a.bin"}))
                .await
                .0
                .len(),
            100_000
        );
        // The request may be lost in the flood, so it is repeated.
        id += 1;
        let request = client.datagram(ack(id, 1), 0);
        client.send(&request).await;
        (server.server.dropped_datagrams() >= 10_000).then_some(())
    })
    .await;
    stop.cancel();
    assert!(flood.await.expect("no panic") >= 10_000);
    assert!(client.open(&client.receive().await)["ok"].is_object());
    server.stop().await;
}

#[tokio::test]
async fn no_ticket_is_issued_to_another_machine_without_encryption() {
    let server = TestServer::start_with(|config| {
        config.network.proxies = vec!["127.0.0.1/32".parse().expect("a network")];
        config.auth.plaintext_logins = true;
    })
    .await;
    let mut session = server.connect().await;
    // A header of version 2 of the PROXY protocol (section 2.2), for TCP over IPv4, from 192.0.2.1.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 9, 0, 9]);
    session.send_bytes(&header).await;
    let login = json!({"cmd": "login", "user": "alice", "password": PASSWORD});
    session.ok(login).await;
    session.ok(json!({"cmd": "ticket"})).await;
    let mut config = Config::clone(&server.server.config());
    config.auth.plaintext_logins = false;
    let _ = server.server.reload(&config);
    session.fails(json!({"cmd": "ticket"}), "denied").await;
    server.stop().await;
}

#[tokio::test]
async fn a_ticket_expires() {
    let server = TestServer::start().await;
    let mut session = server.log_in("alice").await;
    let client = RawDatagrams::new(&mut session, server.address).await;
    assert!(client.call(ack(1, 1)).await["ok"].is_object());
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(5)).await;
    tokio::time::resume();
    client.send(&client.datagram(ack(2, 1), 0)).await;
    dropped(&server, 1).await;
    let next = RawDatagrams::new(&mut session, server.address).await;
    assert!(next.call(ack(1, 1)).await["ok"].is_object());
    server.stop().await;
}

#[tokio::test]
async fn the_documented_python_example_sends_a_message() {
    let test = "datagrams::the_documented_python_example_sends_a_message";
    if !requirements::program("python3", "--version", test) {
        return;
    }
    let document = include_str!("../../docs/PROTOCOL.md");
    let blocks = document.split("```python\n").skip(1);
    let mut examples = blocks.filter_map(|rest| rest.split("```").next());
    let example = examples.find(|block| block.contains("hmac"));
    let example = example.expect("an example");
    let server = TestServer::start().await;
    let mut bob = server.log_in("bob").await;
    let mut command = std::process::Command::new("python3");
    command
        .args(["-c", example, "127.0.0.1"])
        .arg(server.address.port().to_string())
        .args(["alice", PASSWORD, "bob", "hello"]);
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(PATIENCE, run).await.expect("it ends");
    let output = output.expect("no panic").expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let reply: Value = serde_json::from_slice(&output.stdout).expect(&errors);
    let event = next_event(&mut bob).await;
    assert_eq!(
        (&event["from"], &event["text"]),
        (&json!("alice"), &json!("hello"))
    );
    assert_eq!(event["seq"], reply["ok"]["seq"]);
    server.stop().await;
}

#[tokio::test]
async fn the_client_sends_datagrams_with_and_without_tls() {
    let server = TestServer::start().await;
    let mut bob = server.log_in("bob").await;
    let plain = format!("haul+plain://{}", server.address);
    let secure = format!("haul://{}", server.address);
    let trust = Trust::default().with_only(server.fingerprint());
    for url in [plain, secure] {
        let url = url.parse().expect("an address");
        let client = Client::connect(&url, &trust).await.expect("it listens");
        let password = Secret::new(PASSWORD.into());
        client.login("alice", &password).await.expect("let in");
        let mut datagrams = client.datagrams().await.expect("a ticket");
        let reply = datagrams.say("bob", "hello").await.expect("sent");
        assert_eq!(next_event(&mut bob).await["seq"], reply.seq);
        let users = datagrams.who().await.expect("listed").users;
        assert_eq!(users.len(), 2);
        let error = datagrams.say("nobody", "hello").await;
        let error = error.expect_err("there is no such user");
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        client.quit().await.expect("gone");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_junk_datagrams_does_not_fill_the_log() {
    let daemon = ServerProcess::start();
    let address = daemon.address.parse().expect("an address");
    let client = RawDatagrams::stranger(address).await;
    for _ in 0..500 {
        client.send(b"junk").await;
    }
    let question = json!({"cmd": "hello", "pad": ".".repeat(300)}).to_string();
    let answer = async || {
        // The flood may have filled the receive buffer, so the request is repeated.
        client.send(question.as_bytes()).await;
        let answer = timeout(Duration::from_millis(100), client.receive()).await;
        answer.ok()
    };
    let answer = soon("an answer to a search", answer).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(answer["port"], address.port());
    let stopped = daemon.terminate();
    assert_eq!(stopped.code, Some(0));
    let lines = stopped.lines();
    let dropped = lines
        .iter()
        .filter(|line| line["message"] == "dropped a datagram");
    let dropped: Vec<_> = dropped.collect();
    assert!((1..50).contains(&dropped.len()), "{}", dropped.len());
    assert!(dropped[0]["reason"].is_string() && dropped[0]["left_out"].is_u64());
}

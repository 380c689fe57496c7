//! Searches for servers, and their answers.

use serde_json::{Value, json};

use crate::datagrams::dropped;
use crate::datagrams::raw_client::RawDatagrams;
use crate::harness::TestServer;

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

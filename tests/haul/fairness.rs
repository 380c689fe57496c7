//! Fairness: one client cannot exhaust what other clients need.

use haul::ops;
use haul::storage::{Rights, SpaceLimits};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::daemon::{ServerProcess, operate};
use crate::harness::{PASSWORD, Received, TestServer, control, data};
use crate::metrics::{LOST, answer};

#[tokio::test]
async fn incomplete_http_requests_do_not_block_the_health_check() {
    let server = TestServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let made = std::future::ready(server.server.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(ops::run(
        listener,
        server.address,
        made,
        || LOST,
        stop.clone(),
    ));
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").await;
        sent.expect("sent");
        slow.push(stream);
    }
    let (head, _) = answer(address, "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stop.cancel();
    drop(slow);
    running.await.expect("it ends");
}

#[tokio::test]
async fn a_flood_of_requests_writes_few_log_lines_which_count_the_omitted_ones() {
    const PINGS: usize = 20_000;
    let daemon = ServerProcess::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    let ping = control(&json!({"id": 7, "cmd": "ping"}));
    let mut sent = 0;
    while sent < PINGS {
        client.send_bytes(&ping.repeat(500)).await;
        for _ in 0..500 {
            client.reply().await;
        }
        sent += 500;
    }
    client.ok(json!({"cmd": "quit"})).await;
    drop(client);
    let stopped = daemon.terminate();
    let (mut written, mut left_out) = (0, 0);
    for line in stopped.lines() {
        written += u64::from(line["cmd"] == "ping");
        if line["event"] == "requests_left_out" {
            left_out += line["left_out"].as_u64().expect("a number");
        }
    }
    assert_eq!(written + left_out, PINGS as u64);
    assert!(written < PINGS as u64 / 2, "{written} lines");
}

#[tokio::test]
async fn one_member_with_the_maximum_of_open_uploads_leaves_descriptors_for_others() {
    let daemon = ServerProcess::start_with_descriptors(1024);
    operate(daemon.data(), "user add bob", &format!("{PASSWORD}\n"));
    let of_bob = operate(daemon.data(), "token add bob", "");
    let token = daemon.token();
    let mut greedy = Vec::new();
    let mut limited = 0;
    for _ in 0..10 {
        let mut client = daemon.log_in(&token).await;
        for id in 1..=60 {
            let path = format!("file{id}");
            client
                .send(json!({"id": id, "cmd": "put", "path": path}))
                .await;
            let reply = client.reply().await;
            limited += usize::from(reply["error"]["code"] == "limited");
        }
        greedy.push(client);
    }
    assert!(limited > 500, "only {limited} of 600 were refused");
    let mut bob = daemon.log_in(&of_bob).await;
    bob.put("of-bob.txt", b"content").await;
    bob.put("large.txt", &vec![b'x'; 1 << 20]).await;
    bob.ok(json!({"cmd": "hash", "path": "large.txt"})).await;
}

/// The memory per session is bounded even if sessions put many small files with paths of the
/// maximum length, and read no reply before all are sent.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_with_the_longest_paths_need_no_more_memory_per_session() {
    const SESSIONS: usize = 8;
    const FILES: u32 = 600;
    let daemon = ServerProcess::start();
    let token = daemon.token();
    let directory = ["x".repeat(200).as_str(); 18].join("/");
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(daemon.log_in(&token).await);
    }
    let mkdir = json!({"cmd": "mkdir", "path": directory, "parents": true});
    clients[0].ok(mkdir).await;
    let before = daemon.peak();
    let mut tasks = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let directory = directory.clone();
        tasks.push(tokio::spawn(async move {
            let mut bytes = Vec::new();
            for id in 1..=FILES {
                let path = format!("{directory}/{}{number}-{id}", "y".repeat(100));
                let put = json!({"id": id, "cmd": "put", "path": path, "size": 1});
                bytes.extend(control(&put));
                bytes.extend(data(id, b"x"));
                bytes.extend(control(&json!({"id": id, "cmd": "end"})));
            }
            let (mut receiver, mut sender) = client.split();
            let sending = async { sender.write_all(&bytes).await.expect("it reads") };
            let receiving = async {
                let mut done = 0;
                while done < FILES {
                    let Received::Control(reply) = receiver.receive().await else {
                        panic!("the connection has ended");
                    };
                    assert!(reply.get("error").is_none(), "{reply}");
                    done += u32::from(reply["ok"].is_object());
                }
            };
            tokio::join!(sending, receiving);
        }));
    }
    for task in tasks {
        task.await.expect("all are stored");
    }
    let each = (daemon.peak() - before) / SESSIONS as u64;
    eprintln!("{} KiB a session", each / 1024);
    assert!(each < 6 * 1024 * 1024, "{} KiB a session", each / 1024);
}

#[tokio::test]
async fn whoami_and_folders_work_for_a_member_of_720_folders() {
    let server = TestServer::start().await;
    server.add_admin("root").await;
    let accounts = &server.accounts;
    let alice = "alice".parse().expect("a name");
    for number in 0..720 {
        let folder = format!("a-folder-with-a-long-name-{number:04}");
        let folder = folder.parse().expect("a name");
        accounts
            .add_folder(&folder, SpaceLimits::default())
            .await
            .expect("added");
        accounts
            .grant(&folder, &alice, Rights::ALL)
            .await
            .expect("granted");
    }
    let mut alice = server.log_in("alice").await;
    // On a busy disk the server may reply that it has not opened all folders yet.
    let who = loop {
        let mut reply = alice.call(json!({"cmd": "whoami"})).await;
        if reply["ok"].is_object() {
            break reply["ok"].take();
        }
        assert_eq!(reply["error"]["code"], "limited", "{reply}");
    };
    let shown = who["folders"].as_array().expect("folders").len();
    assert!(shown > 400 && shown < 720, "{shown} folders");
    assert_eq!(who["more"], true);
    let mut root = server.log_in("root").await;
    let page = root.ok(json!({"cmd": "users"})).await;
    assert_eq!(page["users"][0]["user"], "alice");
    assert_eq!(page["users"][0]["more"], true);
    let page = root
        .ok(json!({"cmd": "users", "cursor": page["cursor"]}))
        .await;
    assert_eq!(page["users"][0]["user"], "bob");
}

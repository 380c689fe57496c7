//! `watch`.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::sync::watch;

use crate::daemon::Watchdog;
use crate::harness::{TestServer, soon};
use crate::talking::proxy::proxy_with_cuts;
use crate::talking::say;
use crate::talking::scripted_server::{changed, start_scripted_server};
use crate::talking::talker::{Talker, collect_output, ended};

#[tokio::test]
async fn watch_prints_changes_and_reconnects() {
    let address = start_scripted_server(|connection, request| {
        let since = request["since"].as_u64();
        let watching = json!({"ok": {"watch": 1, "seq": 5}});
        match (connection % 2, request["cmd"].as_str()) {
            (0, Some("watch")) => vec![
                watching,
                changed(6, &json!({"path": "/team/a\u{1b}[2J", "kind": "written"})),
                changed(
                    7,
                    &json!({"path": "/team/b", "kind": "moved", "from": "/team/a"}),
                ),
                json!({"event": "goodbye", "reason": "shutting_down"}),
            ],
            (_, Some("watch")) => vec![
                changed(
                    7,
                    &json!({"path": "/team/b", "kind": "moved", "from": "/team/a"}),
                ),
                changed(
                    8,
                    &json!({"path": format!("/since {since:?}"), "kind": "made"}),
                ),
                watching,
                json!({"event": "changed", "seq": 9, "path": "/team", "kind": "overflow"}),
            ],
            _ => Vec::new(),
        }
    })
    .await;
    let bob = Talker::for_user(&address, "bob");
    let watch = bob.starts(&["watch", "/team"]);
    let seen = watch.prints("overflow").await;
    assert_eq!(
        seen,
        "written /team/a\\u{1b}[2J by alice\n\
         moved /team/a → /team/b by alice\n\
         made /since Some(7) by alice\n\
         overflow /team: the server could not report all changes; read the directory again\n"
    );
    watch.prints_error("connected again").await;
    kill_process(Pid::from_child(&watch.child), Signal::INT).expect("it runs");
    assert_eq!(watch.ends().await.0, Some(130));
}

#[tokio::test]
async fn watch_prints_one_object_per_line_until_its_output_is_closed() {
    let address = start_scripted_server(|_, request| match request["cmd"].as_str() {
        Some("watch") => vec![
            json!({"ok": {"watch": 1, "seq": 5}}),
            changed(6, &json!({"path": "/a", "kind": "written"})),
            changed(7, &json!({"path": "/b", "kind": "removed"})),
        ],
        _ => Vec::new(),
    })
    .await;
    let bob = Talker::for_user(&address, "bob");
    let watch = bob.starts(&["--json", "watch", "/"]);
    let line = watch.prints("/b").await;
    assert_eq!(
        line,
        "{\"event\":\"changed\",\"seq\":6,\"path\":\"/a\",\"kind\":\"written\",\"by\":\"alice\"}\n\
         {\"event\":\"changed\",\"seq\":7,\"path\":\"/b\",\"kind\":\"removed\",\"by\":\"alice\"}\n"
    );
    kill_process(Pid::from_child(&watch.child), Signal::TERM).expect("it runs");
    assert_eq!(watch.ends().await.0, Some(130));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut unread = bob.command(&["--json", "watch", "/"]);
    let mut child = unread.stdout(writer).spawn().expect("started");
    let _watchdog = Watchdog::of_process(&child);
    let reply = collect_output(child.stderr.take().expect("piped"));
    assert_eq!(ended(child).await, Some(0));
    assert_eq!(*reply.lock().expect("no panic"), "");
}

#[tokio::test]
async fn watch_reconnects_and_consumes_no_messages() {
    let server = TestServer::start().await;
    let (cut, cuts) = watch::channel(0);
    let address = proxy_with_cuts(&server, cuts).await;
    let bob = Talker::for_user(&address, "bob");
    let mut bob_session = server.log_in("bob").await;
    bob_session
        .ok(json!({"cmd": "mkdir", "path": "/team"}))
        .await;
    let mut alice = server.log_in("alice").await;
    let watching = bob.starts(&["watch", "/team"]);
    // The start of the watch is unknown, so directories are made until it reports one.
    soon("a watch", async || {
        bob_session
            .ok(json!({"cmd": "mkdir", "path": "/team/first"}))
            .await;
        let is_reported = watching.stdout.lock().expect("no panic").contains("first");
        bob_session
            .ok(json!({"cmd": "rm", "path": "/team/first"}))
            .await;
        is_reported.then_some(())
    })
    .await;
    bob_session.put("/team/one", b"1").await;
    watching.prints("/team/one").await;
    cut.send(1).expect("someone waits for it");
    watching.prints_error("connection lost").await;
    bob_session
        .ok(json!({"cmd": "mv", "from": "/team/one", "to": "/team/two"}))
        .await;
    say(&mut alice, "bob", "not for a watch").await;
    watching.prints_error("connected again").await;
    bob_session
        .ok(json!({"cmd": "rm", "path": "/team/two"}))
        .await;
    let seen = watching.prints("removed /team/two").await;
    let (_, after) = seen.split_once("written").expect("the file");
    assert_eq!(
        after,
        " /team/one by bob\nmoved /team/one → /team/two by bob\nremoved /team/two by bob\n"
    );
    kill_process(Pid::from_child(&watching.child), Signal::INT).expect("it runs");
    assert_eq!(watching.ends().await.0, Some(130));
}

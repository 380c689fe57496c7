//! Times and permission bits of files and directories, as a client sets and finds them.

use serde_json::{Value, json};

use crate::harness::{RawClient, TestServer, control, data};

const TIME: &str = "2020-02-02T02:02:02.000000002Z";

async fn stat(client: &mut RawClient, path: &str) -> (Value, Value) {
    let mut stat = client.ok(json!({"cmd": "stat", "path": path})).await;
    (stat["modified"].take(), stat["mode"].take())
}

/// Puts a file of so many bytes, with a time and a mode.
async fn put(client: &mut RawClient, path: &str, size: usize, mode: u32) {
    let put =
        json!({"id": 7, "cmd": "put", "path": path, "size": size, "modified": TIME, "mode": mode});
    let mut bytes = control(&put);
    bytes.extend(data(7, &vec![7; size]));
    bytes.extend(control(&json!({"id": 7, "cmd": "end"})));
    client.send_bytes(&bytes).await;
    let reply = client.final_reply(7).await;
    assert!(reply["ok"].is_object(), "{reply}");
}

#[tokio::test]
async fn a_mode_is_given_back_as_it_was_put() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    let hello = client.ok(json!({"cmd": "hello"})).await;
    let features = hello["features"].as_array().expect("features");
    assert!(features.contains(&json!("mode")), "{hello}");
    put(&mut client, "small", 10, 0o600).await;
    put(&mut client, "large", 300_000, 0o755).await;
    client
        .ok(json!({"cmd": "mkdir", "path": "dir", "mode": 0o711}))
        .await;
    client.put("plain", b"text").await;
    let server = server.restart().await;
    let mut client = server.log_in("alice").await;
    assert_eq!(
        stat(&mut client, "small").await,
        (json!(TIME), json!(0o600))
    );
    assert_eq!(
        stat(&mut client, "large").await,
        (json!(TIME), json!(0o755))
    );
    assert_eq!(stat(&mut client, "dir").await.1, json!(0o711));
    assert_eq!(stat(&mut client, "plain").await.1, Value::Null);
    let listed = client.ok(json!({"cmd": "ls"})).await;
    let modes = listed["entries"].as_array().expect("entries").iter();
    let modes: Vec<_> = modes.map(|entry| entry["mode"].clone()).collect();
    let expected = [json!(0o711), json!(0o755), Value::Null, json!(0o600)];
    assert_eq!(modes, expected);
    for (path, mode) in [("small", json!(0o600)), ("plain", Value::Null)] {
        client
            .send(json!({"id": 9, "cmd": "get", "path": path}))
            .await;
        let begin = client.reply().await;
        assert_eq!(begin["begin"]["mode"], mode, "{begin}");
        client.receive().await;
        assert!(client.reply().await["ok"].is_object());
    }
}

#[tokio::test]
async fn time_and_mode_are_set_later_and_the_content_stays() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    client.put("file", b"text").await;
    client.ok(json!({"cmd": "mkdir", "path": "dir"})).await;
    let before = client.ok(json!({"cmd": "stat", "path": "file"})).await;
    for path in ["file", "dir", "/"] {
        let set = json!({"cmd": "setstat", "path": path, "modified": TIME, "mode": 0o750});
        let mut reply = client.ok(set).await;
        assert_eq!(reply["path"].take(), format!("/{}", path.trim_matches('/')));
        assert_eq!(
            reply,
            json!({"path": null, "modified": TIME, "mode": 0o750})
        );
        assert_eq!(stat(&mut client, path).await, (json!(TIME), json!(0o750)));
    }
    let set = json!({"cmd": "setstat", "path": "dir", "mode": 0});
    assert_eq!(client.ok(set).await, json!({"path": "/dir", "mode": 0}));
    assert_eq!(stat(&mut client, "dir").await, (json!(TIME), json!(0)));
    let after = client.ok(json!({"cmd": "stat", "path": "file"})).await;
    for member in ["version", "digest", "size"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    let version = &before["version"];
    let get = json!({"cmd": "get", "path": "file", "version": version});
    assert_eq!(client.get(get).await.0, b"text");
}

#[tokio::test]
async fn a_mode_out_of_range_and_a_change_of_nothing_are_refused_by_name() {
    let server = TestServer::start().await;
    let mut client = server.log_in("alice").await;
    for (request, field) in [
        (json!({"cmd": "mkdir", "path": "d", "mode": 512}), "mode"),
        (json!({"cmd": "mkdir", "path": "d", "mode": "755"}), "mode"),
        (json!({"cmd": "setstat", "path": "/", "mode": -1}), "mode"),
        (json!({"cmd": "setstat", "path": "/"}), "modified"),
        (json!({"cmd": "setstat", "mode": 0}), "path"),
    ] {
        let (code, error) = client.error(request.clone()).await;
        assert_eq!(code, "bad_request", "{request}");
        assert_eq!(error["field"], field, "{request}: {error}");
    }
    let set = json!({"cmd": "setstat", "path": "nothing", "mode": 0});
    client.fails(set, "not_found").await;
    assert!(client.ok(json!({"cmd": "ls"})).await["entries"] == json!([]));
}

//! Revocation ends access, whatever a session is doing: no work begins by a revoked right, and
//! running work ends at its next step.

use std::time::Duration;

use haul::accounts::UserChange;
use haul::config::Config;
use haul::protocol::Secret;
use haul::storage::{Rights, SpaceLimits};
use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tokio::io::AsyncWriteExt;

use crate::datagrams::raw_client::RawDatagrams;
use crate::harness::{PASSWORD, RawClient, Received, TestServer, control, data, soon};

/// The bytes of a file that exceeds the socket buffers.
const LARGE: usize = 24 << 20;

/// The ways in which a user loses a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessLoss {
    GrantRevoked,
    Disabled,
    RemovedAndAdded,
    TokenRemoved,
    AccountsUnreadable,
}

const LOSSES: [AccessLoss; 5] = [
    AccessLoss::GrantRevoked,
    AccessLoss::Disabled,
    AccessLoss::RemovedAndAdded,
    AccessLoss::TokenRemoved,
    AccessLoss::AccountsUnreadable,
];

impl AccessLoss {
    /// Whether it ends the session.
    fn closes(self) -> bool {
        matches!(
            self,
            Self::Disabled | Self::RemovedAndAdded | Self::TokenRemoved
        )
    }

    /// The error codes of requests in the folder from an open session.
    fn codes(self) -> &'static [&'static str] {
        if self == Self::GrantRevoked {
            // Later requests find no such folder.
            &["denied", "not_found"]
        } else {
            &["limited"]
        }
    }
}

/// The state of the session at the revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for a request.
    Reading,
    /// The maximum number of requests is unfinished, and one more waits.
    WaitingForPermit,
    /// Its authority is being refreshed.
    Refreshing,
    /// It has sent `quit`, and a request is unfinished.
    Quitting,
    /// It has closed its sending half, and a request is unfinished.
    HalfClosed,
    /// A request waits for an earlier one.
    Queued,
}

const PHASES: [Phase; 6] = [
    Phase::Reading,
    Phase::WaitingForPermit,
    Phase::Refreshing,
    Phase::Quitting,
    Phase::HalfClosed,
    Phase::Queued,
];

/// A server with the folder `team`, which alice may use, and a token of hers.
struct SharedFolderServer {
    server: TestServer,
    token: Secret,
}

impl SharedFolderServer {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::start_with(change).await;
        let (team, alice) = names();
        let accounts = &server.accounts;
        accounts
            .add_folder(&team, SpaceLimits::default())
            .await
            .expect("added");
        accounts
            .grant(&team, &alice, Rights::ALL)
            .await
            .expect("granted");
        let token = accounts
            .add_token(&alice, "test", None)
            .await
            .expect("made");
        let folder = server.data().join("folders/team");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("victim"), b"victim").expect("written");
        let large = std::fs::File::create(folder.join("large")).expect("made");
        large.set_len(LARGE as u64).expect("sparse");
        Self { server, token }
    }

    async fn log_in(&self) -> RawClient {
        let mut client = self.server.connect().await;
        let login = json!({"cmd": "login", "token": self.token.expose()});
        client.ok(login).await;
        client
    }

    async fn lose(&self, loss: AccessLoss) {
        let accounts = &self.server.accounts;
        let (team, alice) = names();
        match loss {
            AccessLoss::GrantRevoked => accounts.revoke(&team, &alice).await.expect("revoked"),
            AccessLoss::Disabled => {
                let change = UserChange {
                    disabled: Some(true),
                    ..UserChange::default()
                };
                accounts.set_user(&alice, change).await.expect("disabled");
            }
            AccessLoss::RemovedAndAdded => {
                accounts.remove_user(&alice).await.expect("removed");
                self.server.add_user("alice", SpaceLimits::default()).await;
                accounts
                    .grant(&team, &alice, Rights::ALL)
                    .await
                    .expect("granted");
            }
            AccessLoss::TokenRemoved => {
                let tokens = accounts.tokens(&alice).await.expect("readable");
                accounts
                    .remove_token(&alice, tokens[0].id)
                    .await
                    .expect("removed");
            }
            AccessLoss::AccountsUnreadable => {
                self.rename_table("grants", "grants_away").await;
                assert!(self.server.server.refresh_access().await.is_err());
                assert!(!self.server.server.can_read_accounts());
                return;
            }
        }
        let refreshed = self.server.server.refresh_access().await;
        refreshed.expect("readable");
    }

    async fn rename_table(&self, from: &str, to: &str) {
        let options = SqliteConnectOptions::new().filename(self.server.data().join("haul.db"));
        let mut database = SqliteConnection::connect_with(&options)
            .await
            .expect("opens");
        let rename = format!("PRAGMA legacy_alter_table = ON; ALTER TABLE {from} RENAME TO {to}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(rename))
            .execute(&mut database)
            .await
            .expect("renamed");
        database.close().await.expect("closes");
    }

    /// The names in the folder.
    fn folder(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.server.data().join("folders/team"));
        let mut names: Vec<_> = entries
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }
}

fn names() -> (haul::accounts::FolderName, haul::accounts::UserName) {
    (
        "team".parse().expect("a name"),
        "alice".parse().expect("a name"),
    )
}

/// Receives until the server closes or request `last` is answered; returns the number of file
/// bytes, the replies and the events.
async fn drain(client: &mut RawClient, last: Option<u64>) -> (usize, Vec<Value>, Vec<Value>) {
    let (mut bytes, mut replies, mut events) = (0, Vec::new(), Vec::new());
    loop {
        match client.receive().await {
            Received::Data { chunk, .. } => bytes += chunk.len(),
            Received::Control(json) if json.get("event").is_some() => events.push(json),
            Received::Control(json) => {
                let is_last = json.get("begin").is_none() && json["id"].as_u64() == last;
                replies.push(json);
                if is_last && last.is_some() {
                    return (bytes, replies, events);
                }
            }
            Received::Closed => return (bytes, replies, events),
        }
    }
}

fn get_large(id: u32) -> Value {
    // No digest, so that the kernel sends the file without delay.
    json!({"id": id, "cmd": "get", "path": "/team/large", "digest": "none"})
}

async fn revoke_while(phase: Phase, loss: AccessLoss) {
    let scene = SharedFolderServer::start(|config| {
        config.limits.requests = if phase == Phase::WaitingForPermit {
            1
        } else {
            64
        };
        config.limits.transfers = 1;
    })
    .await;
    let mut client = scene.log_in().await;
    // The first get fills the socket, and all other replies wait.
    let begun = phase != Phase::Reading && phase != Phase::Refreshing;
    if begun {
        client.send(get_large(1)).await;
        assert!(client.reply().await["begin"].is_object());
    }
    let removal = json!({"id": 2, "cmd": "rm", "path": "/team/victim"});
    match phase {
        Phase::Reading | Phase::Refreshing => {}
        Phase::WaitingForPermit => client.send(removal.clone()).await,
        Phase::Queued => client.send(get_large(2)).await,
        Phase::Quitting => client.send(json!({"id": 2, "cmd": "quit"})).await,
        Phase::HalfClosed => client.stream.shutdown().await.expect("half-closed"),
    }
    if phase == Phase::Refreshing {
        let server = scene.server.server.clone();
        let (_, ()) = tokio::join!(server.refresh_access(), scene.lose(loss));
    } else {
        scene.lose(loss).await;
    }
    let asks = matches!(phase, Phase::Reading | Phase::Refreshing);
    if asks {
        // The session may have ended already.
        let _ = client.stream.write_all(&control(&removal)).await;
    }
    let ends = loss.closes() || matches!(phase, Phase::Quitting | Phase::HalfClosed);
    let last = if ends { None } else { Some(2) };
    let (bytes, replies, events) = drain(&mut client, last).await;
    let context = format!("{phase:?}, {loss:?}: {replies:?} {events:?}");
    assert!(bytes < LARGE, "{context}");
    assert_eq!(scene.folder(), ["large", "victim"], "{context}");
    for reply in &replies {
        let is_quit = phase == Phase::Quitting && reply["id"] == 2;
        assert!(reply.get("ok").is_none() || is_quit, "{context}");
    }
    if loss.closes() {
        let goodbye = json!({"event": "goodbye", "reason": "account_closed"});
        assert_eq!(events, [goodbye], "{context}");
    } else if !ends {
        let reply = replies
            .iter()
            .find(|reply| reply["id"] == 2 && reply.get("begin").is_none());
        let error = &reply.expect("a reply")["error"];
        let code = error["code"].as_str().unwrap_or_default();
        assert!(loss.codes().contains(&code), "{context}");
        if loss == AccessLoss::AccountsUnreadable {
            assert!(error["retry_after_ms"].is_u64(), "{context}");
            scene.rename_table("grants_away", "grants").await;
            scene
                .server
                .server
                .refresh_access()
                .await
                .expect("readable");
            let mut again = removal;
            again["id"] = 3.into();
            client.send(again).await;
            drain(&mut client, Some(3)).await;
            assert_eq!(scene.folder(), ["large"], "{context}");
        }
    }
    scene.server.stop().await;
}

#[tokio::test]
async fn no_work_begins_by_a_revoked_right_and_running_work_ends() {
    for phase in PHASES {
        for loss in LOSSES {
            revoke_while(phase, loss).await;
        }
    }
}

#[tokio::test]
async fn a_ticket_is_valid_no_longer_than_the_right_of_its_session() {
    for loss in LOSSES {
        let scene = SharedFolderServer::start(|_| {}).await;
        let mut client = scene.log_in().await;
        let datagrams = RawDatagrams::new(&mut client, scene.server.address).await;
        let message = json!({"id": 1, "cmd": "say", "to": "bob", "text": "before"});
        assert!(datagrams.call(message).await["ok"].is_object(), "{loss:?}");
        scene.lose(loss).await;
        let say = json!({"id": 2, "cmd": "say", "to": "bob", "text": "after"});
        match loss {
            AccessLoss::GrantRevoked => {
                assert!(datagrams.call(say).await["ok"].is_object(), "{loss:?}");
            }
            AccessLoss::AccountsUnreadable => {
                let reply = datagrams.call(say).await;
                assert_eq!(reply["error"]["code"], "limited", "{loss:?}");
            }
            _ => {
                let before = scene.server.server.dropped_datagrams();
                datagrams.send(&datagrams.datagram(say, 600)).await;
                let dropped =
                    async || (scene.server.server.dropped_datagrams() > before).then_some(());
                soon("a datagram that is dropped", dropped).await;
            }
        }
        if loss != AccessLoss::AccountsUnreadable {
            let mut bob = scene.server.log_in("bob").await;
            let kept = bob.event().await;
            assert_eq!(kept["text"], "before");
        }
    }
}

#[tokio::test]
async fn an_upload_is_kept_and_can_be_resumed_if_its_rights_cannot_be_checked() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let mut client = scene.log_in().await;
    let content = vec![7; 300_000];
    let put = json!({"id": 1, "cmd": "put", "path": "/team/new", "size": content.len()});
    client.send(put).await;
    client.send_bytes(&data(1, &content[..200_000])).await;
    assert!(client.reply().await["begin"].is_object());
    let staging = scene.server.data().join("staging");
    let written = async || {
        let mut entries = std::fs::read_dir(&staging).ok()?.flatten();
        entries.find(|entry| entry.metadata().is_ok_and(|meta| meta.len() == 200_000))
    };
    soon("the bytes on the disk", written).await;
    scene.lose(AccessLoss::AccountsUnreadable).await;
    client.send_bytes(&data(1, &content[200_000..])).await;
    client.send(json!({"id": 1, "cmd": "end"})).await;
    let refused = client.final_reply(1).await;
    assert_eq!(refused["error"]["code"], "limited", "{refused}");
    assert_eq!(refused["error"]["retryable"], true, "{refused}");
    scene.rename_table("grants_away", "grants").await;
    scene
        .server
        .server
        .refresh_access()
        .await
        .expect("readable");
    client
        .send(json!({
            "id": 2, "cmd": "put", "path": "/team/new", "size": content.len(), "resume": true,
        }))
        .await;
    let begin = client.reply().await;
    assert_eq!(begin["begin"]["offset"], 200_000, "{begin}");
    client.send_bytes(&data(2, &content[200_000..])).await;
    client.send(json!({"id": 2, "cmd": "end"})).await;
    let done = client.final_reply(2).await;
    assert_eq!(done["ok"]["size"], content.len(), "{done}");
}

/// The events up to one that contains `mark`, as one text.
async fn events_until(client: &mut RawClient, mark: &str) -> String {
    let mut text = String::new();
    while !text.contains(mark) {
        text += &client.event().await.to_string();
    }
    text
}

#[tokio::test]
async fn a_watch_reports_a_folder_only_while_its_user_may_see_it() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let accounts = &scene.server.accounts;
    let (team, alice) = names();
    let bobs = "bob".parse().expect("a name");
    accounts
        .grant(&team, &bobs, Rights::ALL)
        .await
        .expect("granted");
    let mut bob = scene.server.log_in("bob").await;
    let mut client = scene.log_in().await;
    client.ok(json!({"cmd": "watch", "path": "/"})).await;
    scene.lose(AccessLoss::GrantRevoked).await;
    bob.ok(json!({"cmd": "mkdir", "path": "/team/secret"}))
        .await;
    client.ok(json!({"cmd": "mkdir", "path": "/first"})).await;
    let text = events_until(&mut client, "/first").await;
    assert!(!text.contains("secret"), "{text}");
    accounts
        .grant(&team, &alice, Rights::ALL)
        .await
        .expect("granted");
    scene
        .server
        .server
        .refresh_access()
        .await
        .expect("readable");
    scene.lose(AccessLoss::AccountsUnreadable).await;
    client
        .fails(json!({"cmd": "watch", "path": "/team"}), "limited")
        .await;
    scene.rename_table("grants_away", "grants").await;
    scene
        .server
        .server
        .refresh_access()
        .await
        .expect("readable");
    // The scope of the watch is resolved concurrently with requests. Missed changes are reported.
    client.ok(json!({"cmd": "mkdir", "path": "/second"})).await;
    let text = events_until(&mut client, "overflow").await;
    assert!(!text.contains("secret"), "{text}");
    let reported = async || {
        bob.call(json!({"cmd": "mkdir", "path": "/team/shown", "parents": true}))
            .await;
        bob.call(json!({"cmd": "rm", "path": "/team/shown"})).await;
        client.ok(json!({"cmd": "ping"})).await;
        let events = std::mem::take(&mut client.events);
        events
            .iter()
            .any(|event| event.to_string().contains("shown"))
            .then_some(())
    };
    soon("an event of the folder", reported).await;
}

#[tokio::test]
async fn a_token_that_expires_ends_the_sessions_that_it_opened_and_no_others() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let (_, alice) = names();
    let expires = jiff::Timestamp::now() + Duration::from_secs(2);
    let token = scene
        .server
        .accounts
        .add_token(&alice, "short", Some(expires))
        .await;
    let mut short = scene.server.connect().await;
    let login = json!({"cmd": "login", "token": token.expect("made").expose()});
    short.ok(login).await;
    let mut long = scene.server.log_in("alice").await;
    let (_, _, events) = drain(&mut short, None).await;
    assert_eq!(events[0]["reason"], "account_closed");
    long.ok(json!({"cmd": "pwd"})).await;
}

#[tokio::test]
async fn a_folder_that_is_removed_and_added_again_at_once_is_another_folder() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let mut client = scene.log_in().await;
    client
        .send(json!({"id": 1, "cmd": "put", "path": "/team/new", "size": 100_001}))
        .await;
    let most = vec![7; 100_000];
    client.send_bytes(&data(1, &most)).await;
    assert!(client.reply().await["begin"].is_object());
    let (team, alice) = names();
    let accounts = &scene.server.accounts;
    accounts.remove_folder(&team).await.expect("removed");
    accounts
        .add_folder(&team, SpaceLimits::default())
        .await
        .expect("added");
    accounts
        .grant(&team, &alice, Rights::ALL)
        .await
        .expect("granted");
    // Whether or not the server has noticed yet.
    client.send_bytes(&data(1, &[7])).await;
    client.send(json!({"id": 1, "cmd": "end"})).await;
    let reply = client.final_reply(1).await;
    let code = reply["error"]["code"].as_str().unwrap_or_default();
    assert!(["denied", "not_found"].contains(&code), "{reply}");
    scene
        .server
        .server
        .refresh_access()
        .await
        .expect("readable");
    client.ok(json!({"cmd": "mkdir", "path": "/team/d"})).await;
    assert_eq!(scene.folder(), ["d"]);
}

#[tokio::test]
async fn accepting_an_offer_does_not_change_the_limits_of_its_sender() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let mut alice = scene.log_in().await;
    alice.put("/gift", b"gift").await;
    alice
        .ok(json!({"cmd": "send", "to": "bob", "path": "/gift"}))
        .await;
    let (_, name) = names();
    let limited = UserChange {
        bytes: Some(haul::accounts::Limit::AtMost(5)),
        ..UserChange::default()
    };
    let mut bob = scene.server.log_in("bob").await;
    let offers = bob.ok(json!({"cmd": "offers"})).await;
    let offer = offers["offers"][0]["offer"].clone();
    scene
        .server
        .accounts
        .set_user(&name, limited)
        .await
        .expect("set");
    scene
        .server
        .server
        .refresh_access()
        .await
        .expect("readable");
    bob.ok(json!({"cmd": "accept", "offer": offer})).await;
    assert_eq!(alice.ok(json!({"cmd": "df"})).await["limit"], 5);
    let reply = alice.put("/more", b"more").await;
    assert_eq!(reply["error"]["code"], "quota_exceeded");
}

#[tokio::test]
async fn a_message_for_a_new_account_does_not_reach_the_session_of_the_old_one() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let mut old = scene.server.log_in("alice").await;
    let mut bob = scene.server.log_in("bob").await;
    scene.lose(AccessLoss::RemovedAndAdded).await;
    bob.ok(json!({"cmd": "say", "to": "alice", "text": "for the new one"}))
        .await;
    let mut new = scene.server.connect().await;
    new.ok(json!({"cmd": "login", "user": "alice", "password": PASSWORD}))
        .await;
    assert_eq!(new.event().await["text"], "for the new one");
    let (_, _, events) = drain(&mut old, None).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["reason"], "account_closed");
}

#[tokio::test]
async fn the_server_recovers_without_a_restart_once_the_accounts_can_be_read() {
    let scene = SharedFolderServer::start(|_| {}).await;
    let mut client = scene.log_in().await;
    scene.rename_table("grants", "grants_away").await;
    let server = scene.server.server.clone();
    soon("the suspension", async || {
        (!server.can_read_accounts()).then_some(())
    })
    .await;
    client.fails(json!({"cmd": "ls"}), "limited").await;
    let say = json!({"cmd": "say", "to": "alice", "text": "unheard"});
    client.fails(say, "limited").await;
    client.ok(json!({"cmd": "ping"})).await;
    scene.rename_table("grants_away", "grants").await;
    soon("the end of it", async || {
        server.can_read_accounts().then_some(())
    })
    .await;
    client.ok(json!({"cmd": "ls"})).await;
}

//! haul's own client library against a server.

use std::fs;
use std::path::Path;

use haul::client::{
    Client, ClientError, FileOptions, GetOptions, Lost, Progress, PutOptions, Trust,
};
use haul::connection::SHORT_CHUNK_BYTES;
use haul::protocol::{ErrorCode, Secret};
use haul::storage::SpaceLimits;
use tokio::sync::mpsc;

use crate::harness::{PASSWORD, TestServer};
use crate::test_files::files_below;

pub(crate) async fn log_in(server: &TestServer, user: &str) -> Client {
    let url = format!("haul+plain://{}", server.address);
    let client = Client::connect(&url.parse().expect("an address"), &Trust::default())
        .await
        .expect("connected");
    let password = Secret::new(PASSWORD.into());
    client.login(user, &password).await.expect("logged in");
    client
}

async fn up_and_down(client: &Client, original: &Path, back: &Path) {
    let (progress, options) = (Progress::new(), FileOptions::default());
    let (sender, notes) = mpsc::channel(1);
    drop(notes);
    let roots = vec![(original.to_owned(), "/copy".to_owned())];
    let up = client
        .put_trees(roots, options, &progress, sender.clone())
        .await
        .expect("put");
    let roots = vec![("/copy".to_owned(), back.to_owned())];
    let down = client
        .get_trees(roots, options, &progress, sender)
        .await
        .expect("got");
    assert_eq!((up.failed, down.failed), (0, 0));
    assert_eq!(up, down);
    assert_eq!(files_below(original), files_below(back));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_uploaded_and_downloaded_unchanged() {
    let server = TestServer::start().await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let original = temp_dir.path().join("original");
    fs::create_dir_all(original.join("a/b/empty")).expect("made");
    fs::write(original.join("a/zero"), "").expect("written");
    fs::write(original.join("a/b/one chunk"), vec![1; SHORT_CHUNK_BYTES]).expect("written");
    fs::write(original.join("large"), vec![2; 5 * SHORT_CHUNK_BYTES + 1]).expect("written");
    for number in 0..200 {
        fs::write(original.join(format!("a/{number}")), number.to_string()).expect("written");
    }
    let client = log_in(&server, "alice").await;
    let back = temp_dir.path().join("back");
    up_and_down(&client, &original, &back).await;
    assert!(back.join("a/b/empty").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_more_transfers_than_the_server_allows_waits_without_deadlock() {
    let server = TestServer::start_with(|config| {
        config.limits.transfers = 2;
        config.limits.requests = 4;
    })
    .await;
    let temp_dir = tempfile::tempdir().expect("a directory");
    let original = temp_dir.path().join("original");
    fs::create_dir(&original).expect("made");
    for number in 0..40_u8 {
        let content = vec![number; 2 * SHORT_CHUNK_BYTES];
        fs::write(original.join(number.to_string()), content).expect("written");
    }
    let client = log_in(&server, "alice").await;
    up_and_down(&client, &original, &temp_dir.path().join("back")).await;
}

#[tokio::test]
async fn abandoned_downloads_do_not_block_the_session() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let mut upload = client
        .put("large", PutOptions::default())
        .await
        .expect("begun");
    for _ in 0..40 {
        upload
            .write(vec![7; SHORT_CHUNK_BYTES].into())
            .await
            .expect("taken");
    }
    upload.finish().await.expect("stored");
    for _ in 0..40 {
        let mut download = client
            .get("large", GetOptions::default())
            .await
            .expect("begun");
        assert!(download.chunk().await.is_some());
    }
    assert_eq!(client.pwd().await.expect("answered"), "/");
    let content = client
        .get("large", GetOptions::default())
        .await
        .expect("begun");
    let reply = content.finish().await.expect("whole");
    assert_eq!(reply.size, 40 * SHORT_CHUNK_BYTES as u64);
}

#[tokio::test]
async fn the_remainder_of_a_download_is_verified_against_the_complete_file() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    let mut upload = client.put("a", PutOptions::default()).await.expect("begun");
    upload
        .write(b"0123456789".as_slice().into())
        .await
        .expect("taken");
    upload.finish().await.expect("stored");
    for (seen, fits) in [(b"0123", true), (b"9999", false)] {
        let options = GetOptions::default();
        let mut hasher = haul::protocol::Hasher::new(options.algorithm);
        hasher.update(seen);
        let options = GetOptions {
            offset: 4,
            hashed: Some(hasher),
            ..options
        };
        let download = client.get("a", options).await.expect("begun");
        assert_eq!(download.finish().await.is_ok(), fits);
    }
}

#[tokio::test]
async fn an_upload_over_the_quota_fails_with_the_reason_and_the_session_continues() {
    let server = TestServer::start().await;
    let limits = SpaceLimits {
        bytes: Some(SHORT_CHUNK_BYTES as u64),
        files: None,
    };
    server.add_user("carol", limits).await;
    let client = log_in(&server, "carol").await;
    let mut upload = client
        .put("pipe", PutOptions::default())
        .await
        .expect("begun");
    let error = loop {
        if let Err(error) = upload.write(vec![7; SHORT_CHUNK_BYTES].into()).await {
            break error;
        }
    };
    assert_eq!(error.code(), Some(ErrorCode::QuotaExceeded));
    assert!(client.ls("/").await.expect("listed").is_empty());
}

#[tokio::test]
async fn calls_on_a_stopped_server_fail_with_that_reason() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    server.stop().await;
    let error = loop {
        if let Err(error) = client.pwd().await {
            break error;
        }
    };
    assert!(
        matches!(error, ClientError::Lost(Lost::Goodbye(_))),
        "{error}"
    );
}

#[tokio::test]
async fn a_large_directory_is_listed_completely_over_many_pages() {
    let server = TestServer::start().await;
    let client = log_in(&server, "alice").await;
    client.mkdir("many", false).await.expect("made");
    let home = server.home("alice").join("many");
    for number in 0..3000 {
        fs::write(home.join(format!("{number:04}")), "").expect("written");
    }
    let entries = client.ls("many").await.expect("listed");
    let expected: Vec<_> = (0..3000).map(|number| format!("{number:04}")).collect();
    let names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, expected);
}

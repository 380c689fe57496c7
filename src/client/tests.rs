//! The client against a server that follows a script, over a pipe in memory.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use crate::client::*;
use crate::connection::{ReceiveError, Receiver, SHORT_CHUNK_BYTES};
use crate::protocol::{
    Algorithm, Digest, End, ErrorCode, Frame, FrameCodec, GetBegin, GetReply, Nothing, Put,
    PutReply, Pwd, Request, WireError, encode_begin, encode_error, encode_ok,
};

/// The other end of a client: what it receives, and words put into its mouth.
pub(super) struct ScriptedServer {
    receiver: Receiver<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

pub(super) fn pair() -> (Client, ScriptedServer) {
    pair_with_buffer(64 * 1024)
}

fn pair_with_buffer(bytes: usize) -> (Client, ScriptedServer) {
    let (near, far) = duplex(bytes);
    let (reader, writer) = split(far);
    let receiver = Receiver::new(reader, FrameCodec::new(), Duration::from_mins(1));
    (
        Client::from_stream(near),
        ScriptedServer { receiver, writer },
    )
}

impl ScriptedServer {
    pub(super) async fn frame(&mut self) -> Frame {
        let frame = self.next_frame().await;
        frame.expect("the client is still there")
    }

    /// The next frame, or `None` once the client has hung up.
    pub(super) async fn next_frame(&mut self) -> Option<Frame> {
        self.try_next_frame().await.expect("sound frames")
    }

    /// The next frame, which may be cut off.
    pub(super) async fn try_next_frame(&mut self) -> Result<Option<Frame>, ReceiveError> {
        self.receiver.next().await
    }

    pub(super) async fn request(&mut self) -> (u32, Request) {
        let request = self.next_request().await;
        request.expect("the client is still there")
    }

    /// The next request, or `None` once the client has hung up.
    pub(super) async fn next_request(&mut self) -> Option<(u32, Request)> {
        match self.next_frame().await? {
            Frame::Control(json) => Some(Request::parse(&json).expect("a sound request")),
            data @ Frame::Data { .. } => panic!("a request, not {data:?}"),
        }
    }

    pub(super) async fn say(&mut self, json: impl AsRef<[u8]>) {
        self.send(Frame::Control(Bytes::copy_from_slice(json.as_ref())))
            .await;
    }

    pub(super) async fn send(&mut self, frame: Frame) {
        let mut bytes = bytes::BytesMut::new();
        frame.put_head(&mut bytes);
        bytes.extend_from_slice(frame.body());
        self.writer.write_all(&bytes).await.expect("open");
    }

    pub(super) async fn send_file(&mut self, id: u32, content: &[u8], digest: Digest) {
        self.begin(id, content.len() as u64).await;
        for chunk in content.chunks(1000) {
            let chunk = Bytes::copy_from_slice(chunk);
            self.send(Frame::Data { stream: id, chunk }).await;
        }
        let reply = GetReply {
            size: content.len() as u64,
            digest: Some(digest),
        };
        self.say(encode_ok(id, &reply)).await;
    }

    async fn begin(&mut self, id: u32, length: u64) {
        let begin = GetBegin {
            size: length,
            offset: 0,
            length,
            modified: "2020-02-02T02:02:02Z".parse().expect("a time"),
            mode: None,
            version: "v".into(),
        };
        self.say(encode_begin(id, &begin)).await;
    }

    /// Takes a put to its end, and answers it.
    async fn take_put(&mut self) -> (String, Vec<u8>) {
        let (id, Request::Put(Put { path, .. })) = self.request().await else {
            panic!("a put was to come");
        };
        let mut content = Vec::new();
        let end = loop {
            match self.frame().await {
                Frame::Data { stream, chunk } if stream == id => content.extend_from_slice(&chunk),
                Frame::Control(json) => break Request::parse(&json).expect("sound"),
                other @ Frame::Data { .. } => panic!("{other:?}"),
            }
        };
        let Request::End(end) = end.1 else {
            panic!("an end was to come");
        };
        self.store(id, &path, &content, &end).await;
        (path, content)
    }

    /// Answers the end of a put of which this came.
    pub(super) async fn store(&mut self, id: u32, path: &str, content: &[u8], end: &End) {
        let digest = blake3(content);
        assert_eq!(end.digest, Some(digest));
        let reply = PutReply {
            path: path.into(),
            size: content.len() as u64,
            digest,
            version: "v".into(),
        };
        self.say(encode_ok(id, &reply)).await;
    }
}

pub(super) fn blake3(content: &[u8]) -> Digest {
    Digest::compute(Algorithm::Blake3, content)
}

pub(super) fn no(code: ErrorCode) -> WireError {
    WireError::new(code, "no")
}

#[tokio::test]
async fn replies_find_their_calls_in_any_order() {
    let (client, mut peer) = pair();
    let script = async {
        let (first, _) = peer.request().await;
        let (second, _) = peer.request().await;
        peer.say(format!(r#"{{"id":{second},"ok":{{"cwd":"/second"}}}}"#))
            .await;
        peer.say(format!(r#"{{"id":{first},"ok":{{"cwd":"/first"}}}}"#))
            .await;
    };
    let (first, second, ()) = tokio::join!(client.pwd(), client.pwd(), script);
    assert_eq!(first.expect("answered"), "/first");
    assert_eq!(second.expect("answered"), "/second");
}

#[tokio::test]
async fn a_no_from_the_server_is_an_error_and_the_connection_lives() {
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        peer.say(encode_error(id, &no(ErrorCode::NotFound))).await;
        let (id, _) = peer.request().await;
        peer.say(encode_ok(id, &Nothing {})).await;
    };
    let calls = async {
        let error = client.cd("nowhere").await.expect_err("refused");
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        client.quit().await.expect("answered");
    };
    tokio::join!(calls, script);
}

#[tokio::test]
async fn a_refused_login_is_told_apart() {
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        peer.say(encode_error(id, &no(ErrorCode::LoginFailed)))
            .await;
    };
    let secret = Secret::new("x".into());
    let (login, ()) = tokio::join!(client.login("alice", &secret), script);
    assert!(matches!(login, Err(ClientError::Login(_))));
}

#[tokio::test]
async fn a_lost_connection_fails_every_call_that_waits_and_every_later_one() {
    let (client, mut peer) = pair();
    let script = async move {
        peer.request().await;
        peer.request().await;
    };
    let (one, two, ()) = tokio::join!(client.pwd(), client.pwd(), script);
    for outcome in [one, two, client.pwd().await] {
        assert!(matches!(outcome, Err(ClientError::Lost(Lost::Closed))));
    }
}

#[tokio::test]
async fn the_reason_of_a_goodbye_is_reported() {
    let (client, mut peer) = pair();
    let script = async move {
        peer.request().await;
        peer.say(r#"{"event":"goodbye","reason":"shutting_down"}"#)
            .await;
    };
    let (outcome, ()) = tokio::join!(client.pwd(), script);
    let error = outcome.expect_err("lost");
    assert_eq!(error.to_string(), "the server is shutting down");
}

#[tokio::test]
async fn the_reason_of_a_hang_up_is_reported() {
    let (client, mut peer) = pair();
    let script = async move {
        peer.request().await;
        peer.say(
            r#"{"error":{"code":"bad_frame","message":"a frame of length 0","retryable":false}}"#,
        )
        .await;
    };
    let (outcome, ()) = tokio::join!(client.pwd(), script);
    assert_eq!(
        outcome.expect_err("lost").to_string(),
        "the server closed the connection: a frame of length 0"
    );
}

#[tokio::test]
async fn what_speaks_another_protocol_is_recognised() {
    let (client, mut peer) = pair();
    let script = async move {
        peer.writer
            .write_all(b"HTTP/1.1 400 Bad Request\r\n")
            .await
            .expect("open");
        peer.request().await;
    };
    let (outcome, ()) = tokio::join!(client.pwd(), script);
    assert!(matches!(outcome, Err(ClientError::Lost(Lost::NotHaul(_)))));
}

#[tokio::test]
async fn unknown_events_are_ignored() {
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        peer.say(r#"{"event":"eclipse","seq":7}"#).await;
        peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
            .await;
    };
    let (cwd, ()) = tokio::join!(client.pwd(), script);
    assert_eq!(cwd.expect("answered"), "/");
}

#[tokio::test]
async fn an_answer_to_no_request_ends_the_connection_and_every_wait() {
    let data = |stream| Frame::Data {
        stream,
        chunk: Bytes::from_static(b"x"),
    };
    let control = |json: &'static str| Frame::Control(Bytes::from_static(json.as_bytes()));
    for (frame, says) in [
        (control(r#"{"id":0,"ok":{}}"#), "a reply with the id 0"),
        (
            control(r#"{"id":4000,"ok":{}}"#),
            "a reply with the id 4000",
        ),
        (
            control(r#"{"id":0,"error":{"code":"bad_request","message":"no","retryable":false}}"#),
            "an error (no) with the id 0",
        ),
        (control(r#"{"id":9,"begin":{}}"#), "a begin with the id 9"),
        // Of the call itself, which has no data.
        (control(r#"{"id":1,"begin":{}}"#), "a begin with the id 1"),
        (data(9), "data with the id 9"),
        (data(1), "data with the id 1"),
    ] {
        let (client, mut peer) = pair();
        let script = async {
            peer.request().await;
            peer.send(frame).await;
            assert!(peer.next_request().await.is_none());
        };
        let (outcome, ()) = tokio::join!(client.pwd(), script);
        let error = outcome.expect_err("not answered").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_server_that_stops_answering_ends_and_one_that_takes_long_is_waited_for() {
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        for _ in 0..10 {
            let (ping, Request::Ping(_)) = peer.request().await else {
                panic!("a ping was to come");
            };
            peer.say(encode_error(ping, &no(ErrorCode::Limited))).await;
        }
        peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
            .await;
    };
    let (cwd, ()) = tokio::join!(client.pwd(), script);
    assert_eq!(cwd.expect("answered"), "/");
    let error = client.pwd().await.expect_err("nobody answers");
    assert!(
        matches!(&error, ClientError::Lost(Lost::Broken(_))),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_download_that_is_read_slowly_is_no_silence_of_the_server() {
    let (client, mut peer) = pair();
    let server = tokio::spawn(async move {
        let (id, _) = peer.request().await;
        let content = vec![7; 100_000];
        peer.send_file(id, &content, blake3(&content)).await;
        peer
    });
    let mut download = client.get("a", GetOptions::default()).await.expect("begun");
    for _ in 0..3 {
        download.chunk().await.expect("a chunk");
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    download.finish().await.expect("whole");
    drop(server.await.expect("no panic"));
}

#[tokio::test]
async fn a_second_begin_ends_the_connection_instead_of_blocking_it() {
    let (client, mut peer) = pair();
    let upload = client.put("a", PutOptions::default()).await.expect("sent");
    let (id, _) = peer.request().await;
    for _ in 0..2 {
        peer.say(format!(
            r#"{{"id":{id},"begin":{{"offset":0,"upload":"u"}}}}"#
        ))
        .await;
    }
    let error = upload.finish().await.expect_err("not stored");
    assert!(
        matches!(&error, ClientError::Lost(Lost::Unexpected(_))),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn no_damaged_byte_makes_a_call_wait_for_ever() {
    let sound = br#"{"id":1,"ok":{"cwd":"/a"}}"#;
    let mut frame = vec![0, 0, 0, 0];
    frame[3] = u8::try_from(sound.len()).expect("short");
    frame.extend_from_slice(sound);
    for position in 0..frame.len() {
        for byte in (0..=u8::MAX).filter(|byte| *byte != frame[position]) {
            let (client, mut peer) = pair();
            let mut damaged = frame.clone();
            damaged[position] = byte;
            let script = async {
                peer.request().await;
                // The client may have hung up in the middle.
                let _ = peer.writer.write_all(&damaged).await;
            };
            let calling = timeout(Duration::from_mins(10), client.pwd());
            let (outcome, ()) = tokio::join!(calling, script);
            assert!(outcome.is_ok(), "byte {position} as {byte:#04x}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_stays_silent_is_given_up() {
    let (client, _peer) = pair();
    let outcome = client.hello().await;
    assert!(matches!(outcome, Err(ClientError::TimedOut(_))));
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_instead_of_being_sent() {
    let (client, mut peer) = pair();
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Pwd {}).await })
        })
        .collect();
    let mut ids = Vec::new();
    for _ in 0..48 {
        ids.push(peer.request().await.0);
    }
    let early = timeout(Duration::from_secs(1), peer.receiver.next()).await;
    assert!(early.is_err(), "the 49th waits");
    for id in ids {
        peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
            .await;
    }
    for _ in 48..60 {
        let (id, _) = peer.request().await;
        peer.say(format!(r#"{{"id":{id},"ok":{{"cwd":"/"}}}}"#))
            .await;
    }
    for call in calls {
        call.await.expect("no panic").expect("answered");
    }
}

#[tokio::test]
async fn a_download_arrives_whole_and_checked() {
    let (client, mut peer) = pair_with_buffer(64);
    let content: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let script = async {
        let (id, _) = peer.request().await;
        peer.send_file(id, &content, blake3(&content)).await;
    };
    let get = async {
        let mut download = client.get("a", GetOptions::default()).await.expect("begun");
        let mut received = Vec::new();
        while let Some(chunk) = download.chunk().await {
            received.extend_from_slice(&chunk);
        }
        let reply = download.finish().await.expect("checked");
        (received, reply.size)
    };
    let ((received, size), ()) = tokio::join!(get, script);
    assert_eq!((received, size), (content, 100_000));
}

#[tokio::test]
async fn a_download_of_other_bytes_than_the_server_has_fails() {
    let (client, mut peer) = pair();
    let script = async {
        let (id, _) = peer.request().await;
        peer.send_file(id, b"flipped", blake3(b"content")).await;
    };
    let get = async {
        let download = client.get("a", GetOptions::default()).await.expect("begun");
        download.finish().await
    };
    let (outcome, ()) = tokio::join!(get, script);
    assert!(matches!(outcome, Err(ClientError::DigestMismatch { .. })));
}

#[tokio::test]
async fn a_download_of_more_or_fewer_bytes_than_announced_fails() {
    for announced in [3_u64, 9] {
        let (client, mut peer) = pair();
        let script = async {
            let (id, _) = peer.request().await;
            peer.begin(id, announced).await;
            let chunk = Bytes::from_static(b"123456");
            peer.send(Frame::Data { stream: id, chunk }).await;
            let reply = GetReply {
                size: announced,
                digest: Some(blake3(b"123456")),
            };
            peer.say(encode_ok(id, &reply)).await;
        };
        let get = async {
            let download = client.get("a", GetOptions::default()).await.expect("begun");
            download.finish().await
        };
        let (outcome, ()) = tokio::join!(get, script);
        assert!(matches!(outcome, Err(ClientError::InvalidReply(_))));
    }
}

#[tokio::test]
async fn a_dropped_download_is_cancelled_and_what_still_comes_of_it_harms_no_other() {
    let (client, mut peer) = pair();
    let dropped = tokio::sync::Notify::new();
    let script = async {
        let (id, _) = peer.request().await;
        peer.begin(id, 1 << 40).await;
        let (cancel_id, Request::Cancel(cancel)) = peer.request().await else {
            panic!("a cancel was to come");
        };
        assert_eq!(cancel.target, id);
        dropped.notify_one();
        let (other, _) = peer.request().await;
        assert_ne!(other, id);
        for _ in 0..100 {
            let chunk = Bytes::from(vec![0; 1000]);
            peer.send(Frame::Data { stream: id, chunk }).await;
        }
        peer.say(encode_error(id, &no(ErrorCode::Cancelled))).await;
        peer.say(encode_ok(cancel_id, &Nothing {})).await;
        peer.send_file(other, b"content", blake3(b"content")).await;
    };
    let gets = async {
        let first = client.get("a", GetOptions::default()).await.expect("begun");
        drop(first);
        dropped.notified().await;
        let other = client.get("b", GetOptions::default()).await.expect("begun");
        other.finish().await.expect("whole");
    };
    tokio::join!(gets, script);
}

#[tokio::test]
async fn a_get_given_up_before_it_began_is_cancelled_too() {
    let (client, mut peer) = pair();
    let get = tokio::spawn({
        let client = client.clone();
        async move { client.get("a", GetOptions::default()).await.map(drop) }
    });
    let (id, _) = peer.request().await;
    get.abort();
    let (_, Request::Cancel(cancel)) = peer.request().await else {
        panic!("a cancel was to come");
    };
    assert_eq!(cancel.target, id);
}

#[tokio::test]
async fn a_put_is_sent_without_waiting_for_its_begin() {
    let (client, mut peer) = pair();
    let content = vec![b'x'; SHORT_CHUNK_BYTES + 1];
    let put = async {
        let mut upload = client.put("b", PutOptions::default()).await?;
        upload.write(content.clone().into()).await?;
        upload.finish().await
    };
    let (outcome, (path, received)) = tokio::join!(put, peer.take_put());
    assert_eq!(outcome.expect("stored").path, path);
    assert!(received == content);
}

#[tokio::test]
async fn a_put_refused_midway_stops_sending_and_tells_why() {
    let (client, mut peer) = pair();
    let put = async {
        let mut upload = client.put("b", PutOptions::default()).await.expect("sent");
        let error = loop {
            if let Err(error) = upload.write(vec![0; SHORT_CHUNK_BYTES].into()).await {
                break error;
            }
        };
        let again = upload.write(vec![0; SHORT_CHUNK_BYTES].into()).await;
        assert!(matches!(again, Err(ClientError::TransferEnded)));
        error
    };
    let script = async {
        let (id, _) = peer.request().await;
        peer.frame().await;
        peer.say(encode_error(id, &no(ErrorCode::QuotaExceeded)))
            .await;
        loop {
            peer.frame().await;
        }
    };
    let error = tokio::select! {
        error = put => error,
        () = script => unreachable!("it reads on"),
    };
    assert_eq!(error.code(), Some(ErrorCode::QuotaExceeded));
}

#[tokio::test]
async fn a_dropped_put_is_cancelled() {
    let (client, mut peer) = pair();
    let upload = client.put("b", PutOptions::default()).await.expect("sent");
    let (id, _) = peer.request().await;
    drop(upload);
    let (_, Request::Cancel(cancel)) = peer.request().await else {
        panic!("a cancel was to come");
    };
    assert_eq!(cancel.target, id);
}

#[tokio::test]
async fn the_connection_ends_when_nobody_has_it_any_more() {
    let (client, mut peer) = pair();
    drop(client);
    assert!(matches!(peer.receiver.next().await, Ok(None)));
}

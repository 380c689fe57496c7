use std::fs::File;
use std::io::Write;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;

use super::*;
use crate::connection::{LONG_CHUNK_BYTES, Outbox, Receiver, write_frames};
use crate::protocol::{Frame, FrameCodec};

const LONG: Duration = Duration::from_mins(1);
const MUCH: usize = 64 << 20;

impl FileSource for File {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that may wait, as many as are asked for.
struct TestBlockingPool;

impl BlockingPool for TestBlockingPool {
    fn run(
        &self,
        work: Box<dyn FnOnce() -> SendProgress + Send>,
    ) -> BoxFuture<'static, Option<SendProgress>> {
        Box::pin(async move { spawn_blocking(work).await.ok() })
    }
}

/// An outbox that is written to a TCP connection, and the other end of that.
async fn connection() -> (Outbox, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let (reader, writer) = near.expect("accepted").0.into_split();
    let outlet = FrameSink::for_tcp(writer);
    let (outbox, queue) = Outbox::for_sink(&outlet);
    assert!(outbox.supports_sendfile());
    tokio::spawn(async move {
        let written = write_frames(outlet, queue, LONG).await;
        drop(reader);
        written
    });
    (outbox, far.expect("connected"))
}

fn file(content: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("written");
    Arc::new(file)
}

async fn send(outbox: &Outbox, file: &Arc<File>, start: usize, length: usize) -> SendOutcome {
    let slot = outbox.data_slot().await.expect("open");
    let threads = Arc::new(TestBlockingPool);
    let (part, sent) = FilePart::new(7, file.clone(), start as u64, length, threads);
    slot.send_part(part);
    sent
}

/// Sends 64 MiB of nothing, as long as anything is sent.
fn send_much(outbox: &Outbox) -> tokio::task::JoinHandle<Option<SendOutcome>> {
    let outbox = outbox.clone();
    let file = file(&[]);
    file.set_len(MUCH as u64).expect("sparse");
    tokio::spawn(async move {
        let mut last = None;
        for start in (0..MUCH).step_by(LONG_CHUNK_BYTES) {
            let Ok(slot) = outbox.data_slot().await else {
                break;
            };
            let threads = Arc::new(TestBlockingPool);
            let (part, sent) =
                FilePart::new(7, file.clone(), start as u64, LONG_CHUNK_BYTES, threads);
            slot.send_part(part);
            last = Some(sent);
        }
        last
    })
}

#[tokio::test]
async fn a_file_arrives_as_it_is_and_what_comes_after_it_is_understood() {
    let (outbox, far) = connection().await;
    let content: Vec<u8> = (0..=250).cycle().take(5_000_003).collect();
    let file = file(&content);
    let sending = tokio::spawn(async move {
        let mut all = Vec::new();
        for start in (0..5_000_003).step_by(LONG_CHUNK_BYTES) {
            let length = LONG_CHUNK_BYTES.min(5_000_003 - start);
            all.push(send(&outbox, &file, start, length).await);
        }
        let last = Bytes::from_static(b"{\"id\":7}");
        outbox.send_after_data(last).await.expect("open");
        for sent in all {
            sent.await.expect("sent").expect("whole");
        }
    });
    let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
    let mut all = Vec::new();
    while let Some(frame) = receiver.next().await.expect("sound") {
        match frame {
            Frame::Data { stream: 7, chunk } => {
                assert!(!chunk.is_empty() && chunk.len() <= LONG_CHUNK_BYTES);
                all.extend_from_slice(&chunk);
            }
            Frame::Control(json) => assert_eq!(json, "{\"id\":7}"),
            other @ Frame::Data { .. } => panic!("{other:?}"),
        }
    }
    assert!(all == content);
    sending.await.expect("no panic");
}

#[tokio::test]
async fn a_file_that_ends_early_is_reported_and_its_frame_is_padded() {
    let (outbox, far) = connection().await;
    let file = file(&vec![b'x'; 200_000]);
    let sent = send(&outbox, &file, 0, 400_000).await;
    outbox
        .send_after_data(Bytes::from_static(b"{}"))
        .await
        .expect("open");
    drop(outbox);
    let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
    let mut last = None;
    while let Some(frame) = receiver.next().await.expect("sound") {
        last = Some(frame);
    }
    assert_eq!(last, Some(Frame::Control(Bytes::from_static(b"{}"))));
    let error = sent.await.expect("told").expect_err("it is short");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_small_reply_overtakes_a_large_file_that_the_peer_does_not_read_yet() {
    let (outbox, mut far) = connection().await;
    let sending = send_much(&outbox);
    // Something has left, so the first is begun.
    far.readable().await.expect("open");
    outbox.send(Bytes::from_static(b"{}")).await.expect("open");
    drop(outbox);
    let (mut before, mut head) = (0_u64, [0; 4]);
    loop {
        far.read_exact(&mut head).await.expect("a frame");
        let length = u64::from(u32::from_be_bytes(head));
        if length == 2 {
            break;
        }
        let mut rest = (&mut far).take(length);
        before += tokio::io::copy(&mut rest, &mut tokio::io::sink())
            .await
            .expect("a chunk");
    }
    assert!(before < MUCH as u64 / 2, "{before} bytes came before it");
    sending.abort();
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_given_up_and_the_sender_is_notified() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(listener.accept(), TcpStream::connect(address));
    let outlet = FrameSink::for_tcp(near.expect("accepted").0.into_split().1);
    let (outbox, queue) = Outbox::for_sink(&outlet);
    let sending = send_much(&outbox);
    let error = write_frames(outlet, queue, Duration::from_millis(50)).await;
    assert_eq!(error.expect_err("stuck").kind(), io::ErrorKind::TimedOut);
    let last = sending.await.expect("no panic").expect("some were sent");
    assert!(last.await.is_err(), "it never leaves");
    drop(far);
}

//! Receiving and writing together, over pipes.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use crate::connection::*;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::{Frame, FrameCodec};

const LONG: Duration = Duration::from_mins(1);

fn control(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn frames_pass_a_pipe_of_eight_bytes_unharmed() {
    let (near, far) = duplex(8);
    let (outbox, queue) = Outbox::new();
    let writer = tokio::spawn(write_frames(FrameSink::new(near), queue, LONG));
    let sender = tokio::spawn(async move {
        outbox.send(control(r#"{"id":1}"#)).await?;
        let slot = outbox.data_slot().await?;
        slot.send(7, Bytes::from(vec![b'x'; 1000]));
        outbox.send_after_data(control(r#"{"id":7}"#)).await
    });
    let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
    let mut frames = Vec::new();
    while let Some(frame) = receiver.next().await.expect("sound frames") {
        frames.push(frame);
    }
    let expected = [
        Frame::Control(control(r#"{"id":1}"#)),
        Frame::Data {
            stream: 7,
            chunk: vec![b'x'; 1000].into(),
        },
        Frame::Control(control(r#"{"id":7}"#)),
    ];
    assert_eq!(frames, expected);
    sender.await.expect("no panic").expect("sent");
    writer.await.expect("no panic").expect("written");
}

#[tokio::test]
async fn a_small_reply_overtakes_data_that_waits() {
    let (outbox, queue) = Outbox::new();
    let slot = outbox.data_slot().await.expect("open");
    slot.send(7, Bytes::from_static(b"data"));
    outbox.send(control("{}")).await.expect("open");
    drop(outbox);
    let mut wire = Vec::new();
    write_frames(FrameSink::new(&mut wire), queue, LONG)
        .await
        .expect("written");
    assert!(wire.starts_with(b"\0\0\0\x02{}\0\0\0\x09\x01"), "{wire:?}");
}

#[tokio::test(start_paused = true)]
async fn a_trickled_frame_ends_at_a_deadline_that_no_byte_resets() {
    let (mut near, far) = duplex(64);
    let mut receiver = Receiver::new(far, FrameCodec::new(), Duration::from_secs(10));
    let trickle = tokio::spawn(async move {
        for byte in b"\0\0\0\x40{".iter().chain(&[b' '; 59]) {
            near.write_all(&[*byte]).await.expect("open");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        near
    });
    let start = Instant::now();
    let error = receiver.next().await.expect_err("too slow");
    assert!(matches!(error, ReceiveError::TimedOut(_)), "{error}");
    assert_eq!(start.elapsed().as_secs(), 10);
    trickle.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_between_frames_has_no_frame_deadline() {
    let (mut near, far) = duplex(64);
    let mut receiver = Receiver::new(far, FrameCodec::new(), Duration::from_secs(10));
    let hour = Duration::from_hours(1);
    assert!(timeout(hour, receiver.next()).await.is_err());
    near.write_all(b"\0\0\0\x02{}").await.expect("open");
    assert!(matches!(receiver.next().await, Ok(Some(Frame::Control(_)))));
}

#[tokio::test]
async fn a_receive_that_is_cancelled_anywhere_loses_no_byte() {
    let (mut near, far) = duplex(1);
    let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
    let writer = tokio::spawn(async move {
        near.write_all(b"\0\0\0\x09\x01\0\0\0\x05data")
            .await
            .expect("open");
        near
    });
    let frame = loop {
        tokio::select! {
            biased;
            frame = receiver.next() => break frame,
            () = tokio::task::yield_now() => {}
        }
    };
    let expected = Frame::Data {
        stream: 5,
        chunk: Bytes::from_static(b"data"),
    };
    assert_eq!(frame.expect("sound"), Some(expected));
    writer.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up_after_the_write_deadline() {
    let (near, _far) = duplex(8);
    let (outbox, queue) = Outbox::new();
    outbox
        .send(control(&format!("{{{}}}", " ".repeat(100))))
        .await
        .expect("open");
    let error = write_frames(FrameSink::new(near), queue, Duration::from_secs(30)).await;
    assert_eq!(
        error.expect_err("stuck").kind(),
        std::io::ErrorKind::TimedOut
    );
    outbox.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_receive_a_large_frame_slowly_but_not_byte_by_byte() {
    for (piece, is_received) in [(16 * 1024, true), (1, false)] {
        let (near, mut far) = duplex(16 * 1024);
        let (outbox, queue) = Outbox::new();
        let chunk = Bytes::from(vec![0; 512 * 1024]);
        outbox.data_slot().await.expect("open").send(1, chunk);
        drop(outbox);
        let writing = tokio::spawn(write_frames(
            FrameSink::new(near),
            queue,
            Duration::from_secs(30),
        ));
        let mut buffer = vec![0; piece];
        while let Ok(1..) = far.read(&mut buffer).await {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let written = writing.await.expect("no panic");
        assert_eq!(written.is_ok(), is_received, "{piece}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_leaves_no_memory_behind() {
    let (near, far) = duplex(64 * 1024);
    let (outbox, queue) = Outbox::new();
    let writer = tokio::spawn(write_frames(FrameSink::new(near), queue, LONG));
    let mut receiver = Receiver::new(far, FrameCodec::new(), LONG);
    outbox
        .data_slot()
        .await
        .expect("open")
        .send(1, vec![0; 1 << 20].into());
    assert!(matches!(
        receiver.next().await,
        Ok(Some(Frame::Data { .. }))
    ));
    let silence = timeout(Duration::from_secs(3), receiver.next());
    assert!(silence.await.is_err(), "nothing was sent");
    assert!(
        receiver.memory_bytes() <= 1024,
        "{} bytes",
        receiver.memory_bytes()
    );
    drop(outbox);
    writer.await.expect("no panic").expect("written");
}

#[tokio::test]
async fn an_event_comes_after_the_replies_that_wait_and_ahead_of_data() {
    let (outbox, queue) = Outbox::new();
    let slot = outbox.data_slot().await.expect("open");
    slot.send(7, Bytes::from_static(b"data"));
    let event = QueuedEvent {
        inbox_seq: Some(3),
        json: control("{3}"),
        receipt: None,
    };
    outbox.events().push(event).expect("room");
    outbox.send(control("{}")).await.expect("open");
    let events = outbox.events().clone();
    // The outbox stays: events are written while there is somebody to say them.
    let mut wire = Vec::new();
    let writing = write_frames(FrameSink::new(&mut wire), queue, LONG);
    tokio::select! {
        biased;
        end = writing => panic!("{end:?}"),
        drained = events.drained() => assert!(drained),
    }
    assert_eq!(events.written_seq(), 3);
    assert!(wire.starts_with(b"\0\0\0\x02{}\0\0\0\x03{3}"), "{wire:?}");
    drop(outbox);
    assert!(!events.drained().await);
}

/// A peer whose bytes are always there. Notes how many are read at a time.
struct FloodingReader {
    bytes: Bytes,
    reads: Vec<usize>,
}

impl tokio::io::AsyncRead for FloodingReader {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let length = buffer.remaining().min(self.bytes.len());
        let piece = self.bytes.split_to(length);
        buffer.put_slice(&piece);
        self.reads.push(length);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn many_small_frames_are_read_together() {
    const FRAMES: usize = 1000;
    let (outbox, queue) = Outbox::new();
    let mut wire = Vec::new();
    let writing = write_frames(FrameSink::new(&mut wire), queue, LONG);
    let sending = async {
        for _ in 0..FRAMES {
            let json = format!(r#"{{"x":"{}"}}"#, "x".repeat(200));
            outbox.send(control(&json)).await.expect("open");
            let slot = outbox.data_slot().await.expect("open");
            slot.send(7, Bytes::from(vec![1; 4096]));
        }
        drop(outbox);
    };
    let (written, ()) = tokio::join!(writing, sending);
    written.expect("written");
    let mut reader = FloodingReader {
        bytes: wire.into(),
        reads: Vec::new(),
    };
    let mut receiver = Receiver::new(&mut reader, FrameCodec::new(), LONG);
    let mut frames = Vec::new();
    while let Some(frame) = receiver.next().await.expect("a frame") {
        // A session holds some of them until it has handled them.
        frames.push(frame);
        frames.truncate(16);
    }
    let reads = reader.reads.len();
    assert!(
        reads <= FRAMES / 4,
        "{reads} reads: {:?}",
        &reader.reads[..20]
    );
}

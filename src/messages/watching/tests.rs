use std::path::Path;
use std::sync::Arc;

use sqlx::{Connection as _, SqliteConnection};

use crate::connection::EventQueue;
use crate::messages::watching::MAX_WAITING_CHANGES;
use crate::messages::{Messages, Subscription, UserRef};
use crate::protocol::{ChangeKind, Event};
use crate::storage::{FileChange, VirtualPath, VisiblePath};

/// Messages in a directory, with a session of alice that watches her home.
struct WatchScene {
    directory: tempfile::TempDir,
    messages: Messages,
    subscription: Subscription,
    queue: EventQueue,
}

impl WatchScene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let messages = Messages::open(directory.path()).await.expect("opened");
        let queue = EventQueue::default();
        let subscription = messages.subscribe(&alice(), Some(queue.clone()), true, None);
        let watch = subscription.watch("/".into(), vec![scope()], None);
        watch.await.expect("fewer than the limit");
        Self {
            directory,
            messages,
            subscription,
            queue,
        }
    }

    /// Publishes one change for each number.
    fn publish(&self, numbers: std::ops::Range<u64>) {
        let feed = self.messages.change_feed();
        for number in numbers {
            feed.publish(FileChange {
                space: "homes/alice".into(),
                path: VirtualPath::parse(&format!("/{number}")).expect("a path"),
                kind: ChangeKind::Made,
                from: None,
                by: "alice".into(),
            });
        }
    }

    /// The next event of the session, dequeued as the writer does.
    async fn next(&self) -> (u64, String) {
        let event = self.queue.next().await;
        self.queue.mark_written(None);
        let event: Event = serde_json::from_slice(&event.json).expect("an event");
        let Event::Changed(event) = event else {
            panic!("{event:?}");
        };
        let kind = format!("{:?}", event.kind).to_lowercase();
        (event.seq, format!("{kind} {}", event.path))
    }

    /// Waits until all queued operations and changes are processed.
    async fn flush(&self) {
        // Several rounds, because operations and changes arrive in separate queues.
        for _ in 0..100 {
            self.messages.flush().await;
        }
    }
}

fn scope() -> VisiblePath {
    VisiblePath {
        space: "homes/alice".into(),
        inner: VirtualPath::root(),
        path: VirtualPath::root(),
        hidden: Vec::new(),
    }
}

fn alice() -> UserRef {
    UserRef {
        id: 1,
        name: "alice".into(),
    }
}

async fn execute(data: &Path, statement: &'static str) {
    let url = format!("sqlite://{}", data.join("messages.db").display());
    let mut connection = SqliteConnection::connect(&url).await.expect("opened");
    let outcome = sqlx::raw_sql(statement).execute(&mut connection).await;
    outcome.expect("executed");
}

#[tokio::test]
async fn a_session_that_reads_receives_every_change() {
    let scene = WatchScene::new().await;
    let mut last = 0;
    for block in 0..5 {
        let numbers = block * 2000..(block + 1) * 2000;
        scene.publish(numbers.clone());
        for number in numbers {
            let (seq, line) = scene.next().await;
            assert_eq!(line, format!("made /{number}"));
            assert!(seq > last);
            last = seq;
        }
    }
}

#[tokio::test]
async fn a_new_watch_does_not_report_earlier_changes() {
    let scene = WatchScene::new().await;
    for round in 0..20 {
        let before = round * 1000..round * 1000 + 900;
        scene.publish(before.clone());
        let queue = EventQueue::default();
        let later = scene
            .messages
            .subscribe(&alice(), Some(queue.clone()), true, None);
        let scopes = vec![scope()];
        let watch = later.watch("/".into(), scopes, None).await;
        let start = watch.expect("fewer than the limit").seq;
        scene.publish(99_999..100_000);
        for number in before.chain([99_999]) {
            let (seq, event) = scene.next().await;
            assert_eq!(event, format!("made /{number}"));
            assert_eq!(seq > start, number == 99_999, "{seq} {start}");
        }
        let event = queue.next().await;
        assert!(
            event
                .json
                .ends_with(br#""path":"/99999","kind":"made","by":"alice"}"#)
        );
        assert!(queue.try_next().is_none());
    }
}

#[tokio::test]
async fn changes_that_the_full_queue_of_the_sequencer_loses_cause_one_overflow() {
    let scene = WatchScene::new().await;
    // This test does not yield, so the sequencer cannot receive any of them.
    scene.publish(0..2 * MAX_WAITING_CHANGES as u64);
    let (mut received, mut overflows) = (0, 0);
    while received < MAX_WAITING_CHANGES {
        let (_, line) = scene.next().await;
        if line == "overflow /" {
            overflows += 1;
        } else {
            assert_eq!(line, format!("made /{received}"));
            received += 1;
        }
    }
    assert_eq!(overflows, 1);
    scene.publish(7..8);
    assert_eq!(scene.next().await.1, "made /7");
}

#[tokio::test]
async fn a_session_that_does_not_read_receives_one_overflow_and_the_remembered_changes() {
    let scene = WatchScene::new().await;
    for block in 0..8_u64 {
        scene.publish(block * 2000..(block + 1) * 2000);
        scene.flush().await;
    }
    let (mut last, mut lines) = (0, Vec::new());
    while lines.last().is_none_or(|line| line != "made /15999") {
        let (seq, line) = scene.next().await;
        assert!(seq > last, "{seq} after {last}");
        last = seq;
        lines.push(line);
    }
    let overflows: Vec<_> = lines.iter().filter(|line| *line == "overflow /").collect();
    assert_eq!(overflows.len(), 1);
    // The remembered changes, and those that were in the queue before.
    assert!((10_000..12_000).contains(&lines.len()), "{}", lines.len());
}

#[tokio::test]
async fn while_commits_fail_changes_are_delivered_with_reserved_seqs_only() {
    let scene = WatchScene::new().await;
    let fail = "CREATE TRIGGER failing BEFORE UPDATE ON counter \
                BEGIN SELECT RAISE(ABORT, 'no more'); END";
    execute(scene.directory.path(), fail).await;
    scene.publish(0..3000);
    scene.flush().await;
    let reserved: u64 = 2048;
    // The last reserved number is an overflow event. Every session receives it at once.
    let (mut number, mut event) = (0, scene.next().await);
    while event != (reserved, "overflow /".to_owned()) {
        assert_eq!(event, (number + 1, format!("made /{number}")));
        number += 1;
        event = scene.next().await;
    }
    assert!(number < reserved, "{number}");
    scene.flush().await;
    assert!(scene.queue.try_next().is_none());
    assert!(scene.messages.is_failing());
    scene.publish(3000..3001);
    scene.flush().await;
    assert!(scene.queue.try_next().is_none());
    execute(scene.directory.path(), "DROP TRIGGER failing").await;
    // The lost changes are reported although no further change happens.
    assert_eq!(scene.next().await.1, "overflow /");
    assert!(!scene.messages.is_failing());
    scene.publish(3001..3002);
    assert_eq!(scene.next().await.1, "made /3001");
}

#[tokio::test]
async fn a_session_that_has_ended_keeps_no_task_alive() {
    let scene = WatchScene::new().await;
    scene.publish(0..2000);
    scene.flush().await;
    scene.queue.close();
    let shared = Arc::downgrade(&scene.messages.shared);
    drop(scene.subscription);
    scene.messages.flush().await;
    assert!(scene.queue.try_next().is_none());
    drop(scene.messages);
    // The sequencer ends, and no task that waits for a queue keeps the state alive.
    while shared.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

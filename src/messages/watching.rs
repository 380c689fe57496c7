//! Watching: changes on their way from where files change to the sessions that watch.
//!
//! They pass a bounded queue, get their places from the sequencer, and go into the lanes of those
//! who hear them, or wait among what is remembered until the lane has been written. Nothing of this
//! is kept in the database.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::connection::{EventQueue, QueuedEvent};
use crate::messages::operation::{Operation, SessionOperation};
use crate::messages::watches::{CatchUp, WatchScope, WatchedChange, Watches};
use crate::messages::{MessagesError, MessagesState, Subscription};
use crate::protocol::{Changed, Event, WatchReply, encode_event};

/// Changes that may wait for their places.
pub(super) const WAITING: usize = 4096;

/// Remembered changes that are looked at for a session at a time.
const LOOKED_AT: usize = 256;

/// Where changes are told. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChangeFeed {
    queue: mpsc::Sender<WatchedChange>,
    lost: Arc<AtomicBool>,
}

impl ChangeFeed {
    /// Tells a change, without waiting. If there is no room for it, all who watch anything are told
    /// that there were changes which nobody knows.
    pub fn tell(&self, change: WatchedChange) {
        if self.queue.try_send(change).is_err() {
            self.lost.store(true, Ordering::Release);
        }
    }
}

/// What is asked about the watches of a session.
#[derive(Debug)]
pub(super) enum WatchRequest {
    Watch {
        path: String,
        scopes: Vec<WatchScope>,
        since: Option<u64>,
        done: oneshot::Sender<Result<WatchReply, MessagesError>>,
    },
    Unwatch {
        watch: u32,
        done: oneshot::Sender<Result<bool, MessagesError>>,
    },
    /// Answered with the numbers and paths.
    Watched(oneshot::Sender<Result<Vec<(u32, String)>, MessagesError>>),
    Restrict {
        spaces: Vec<Arc<str>>,
    },
    Rescope {
        watch: u32,
        scopes: Vec<WatchScope>,
    },
    /// The lane of a session that is behind has been written.
    CatchUp,
}

impl Subscription {
    /// Has the session hear what happens at `path`, which leads to `scopes`, and with `since` what
    /// has happened there after that.
    ///
    /// # Errors
    /// [`MessagesError::TooManyWatches`].
    pub async fn watch(
        &self,
        path: String,
        scopes: Vec<WatchScope>,
        since: Option<u64>,
    ) -> Result<WatchReply, MessagesError> {
        self.ask(|done| WatchRequest::Watch {
            path,
            scopes,
            since,
            done,
        })
        .await
    }

    /// Ends a watch; `false` if the session has none of that number.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub async fn unwatch(&self, watch: u32) -> Result<bool, MessagesError> {
        self.ask(|done| WatchRequest::Unwatch { watch, done }).await
    }

    /// The session's watches, as numbers and paths.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub async fn watched(&self) -> Result<Vec<(u32, String)>, MessagesError> {
        self.ask(WatchRequest::Watched).await
    }

    /// The session's watches cover nothing in other spaces than these from now on.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub fn restrict(&self, spaces: Vec<Arc<str>>) -> Result<(), MessagesError> {
        let ask = WatchRequest::Restrict { spaces };
        self.shared.tell_sequencer(Operation::Session(
            self.session,
            SessionOperation::Watching(ask),
        ))
    }

    /// A watched path leads elsewhere from now on.
    ///
    /// # Errors
    /// [`MessagesError::Ended`].
    pub fn rescope(&self, watch: u32, scopes: Vec<WatchScope>) -> Result<(), MessagesError> {
        let ask = WatchRequest::Rescope { watch, scopes };
        self.shared.tell_sequencer(Operation::Session(
            self.session,
            SessionOperation::Watching(ask),
        ))
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, MessagesError>>) -> WatchRequest,
    ) -> Result<T, MessagesError> {
        let session = self.session;
        let op = |done| Operation::Session(session, SessionOperation::Watching(ask(done)));
        self.shared.ask(op).await
    }
}

/// The sequencer's part in it.
#[derive(Debug)]
pub(super) struct Watching {
    watches: Watches<u64>,
    queue: mpsc::Receiver<WatchedChange>,
    lost: Arc<AtomicBool>,
    /// Sessions that are behind and whose lanes are waited for.
    waiting: HashSet<u64>,
}

impl Watching {
    /// Where changes are to be told, and what hears of them. What happened up to `seq` is unknown.
    pub(super) fn new(seq: u64) -> (ChangeFeed, Self) {
        let (sender, queue) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicBool::new(false));
        let observer = ChangeFeed {
            queue: sender,
            lost: Arc::clone(&lost),
        };
        let watching = Self {
            watches: Watches::new(seq),
            queue,
            lost,
            waiting: HashSet::new(),
        };
        (observer, watching)
    }

    /// Waits for changes, and takes at most so many. Cancel-safe.
    pub(super) async fn receive(&mut self, changes: &mut Vec<WatchedChange>, most: usize) {
        if self.queue.recv_many(changes, most).await == 0 {
            // There will never be any.
            std::future::pending::<()>().await;
        }
    }

    /// Takes at most so many changes of those that wait.
    pub(super) fn try_receive(&mut self, changes: &mut Vec<WatchedChange>, most: usize) {
        while changes.len() < most
            && let Ok(change) = self.queue.try_recv()
        {
            changes.push(change);
        }
    }

    /// Whether changes were lost since the last time this was asked.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Whether there is word of lost changes that nobody was told yet.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// A change could not get a place.
    pub(super) fn note_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Tells those who hear them changes that have their places. Changes may have been `lost` up to
    /// there.
    pub(super) fn tell(
        &mut self,
        shared: &Arc<MessagesState>,
        changes: Vec<(u64, WatchedChange)>,
        lost: Option<u64>,
    ) {
        let mut full = Vec::new();
        let presence = shared.presence();
        for (seq, change) in changes {
            for (session, event) in self.watches.changed(seq, change) {
                if !push(presence.lane(session).as_ref(), event) {
                    self.watches.fell_behind(session, seq);
                    full.push(session);
                }
            }
        }
        drop(presence);
        if let Some(seq) = lost {
            self.watches.lose(seq);
            full.extend(self.watches.behind());
        }
        for session in full {
            self.wait_for(shared, session);
        }
    }

    /// Does what is asked when `now` is the last place that was given.
    pub(super) fn take(
        &mut self,
        shared: &Arc<MessagesState>,
        session: u64,
        ask: WatchRequest,
        now: u64,
    ) {
        // Whoever asked may have gone away.
        match ask {
            WatchRequest::Watch {
                path,
                scopes,
                since,
                done,
            } => {
                let begun = self.watches.watch(session, path, scopes, since, now);
                let reply = begun.map(|watch| WatchReply { watch, seq: now });
                let _ = done.send(reply.map_err(MessagesError::from));
                self.catch_up(shared, session);
            }
            WatchRequest::Unwatch { watch, done } => {
                let _ = done.send(Ok(self.watches.unwatch(session, watch)));
            }
            WatchRequest::Watched(done) => {
                let _ = done.send(Ok(self.watches.watched(session)));
            }
            WatchRequest::Restrict { spaces } => self.watches.restrict(session, &spaces, now),
            WatchRequest::Rescope { watch, scopes } => {
                self.watches.rescope(session, watch, scopes, now);
                self.catch_up(shared, session);
            }
            WatchRequest::CatchUp => {
                self.waiting.remove(&session);
                self.catch_up(shared, session);
            }
        }
    }

    /// A session has ended.
    pub(super) fn forget(&mut self, session: u64) {
        self.watches.forget(session);
        self.waiting.remove(&session);
    }

    fn catch_up(&mut self, shared: &Arc<MessagesState>, session: u64) {
        if self.waiting.contains(&session) || !self.watches.is_behind(session) {
            return;
        }
        let lane = shared.presence().lane(session);
        let send = |event| push(lane.as_ref(), event);
        match self.watches.catch_up(session, LOOKED_AT, send) {
            CatchUp::Done => {}
            CatchUp::NoRoom => self.wait_for(shared, session),
            CatchUp::More => {
                self.waiting.insert(session);
                // Behind all that others have asked meanwhile. The sequencer itself is asked.
                let op = SessionOperation::Watching(WatchRequest::CatchUp);
                let _ = shared.tell_sequencer(Operation::Session(session, op));
            }
        }
    }

    /// Has the session catch up once its lane is written.
    fn wait_for(&mut self, shared: &Arc<MessagesState>, session: u64) {
        let lane = shared.presence().lane(session);
        let Some(lane) = lane else {
            return;
        };
        if !self.waiting.insert(session) {
            return;
        }
        let shared = Arc::downgrade(shared);
        tokio::spawn(async move {
            if lane.drained().await
                && let Some(shared) = shared.upgrade()
            {
                // Without a sequencer nobody is told anything.
                let _ = shared.tell_sequencer(Operation::Session(
                    session,
                    SessionOperation::Watching(WatchRequest::CatchUp),
                ));
            }
        });
    }
}

/// Puts an event into the lane of a session; `false` if it has no room.
fn push(lane: Option<&EventQueue>, event: Changed) -> bool {
    // Who has gone away is told nothing.
    lane.is_none_or(|lane| {
        let json = encode_event(&Event::Changed(event));
        let event = QueuedEvent {
            inbox: None,
            json,
            receipt: None,
        };
        lane.push(event).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::messages::{Messages, UserRef};
    use crate::protocol::ChangeKind;

    /// Messages in a directory, and a session of alice that watches her home.
    struct Scene {
        directory: tempfile::TempDir,
        messages: Messages,
        attendance: Subscription,
        lane: EventQueue,
    }

    impl Scene {
        async fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let messages = Messages::open(directory.path()).await.expect("opened");
            let lane = EventQueue::default();
            let attendance = messages.attend(&alice(), Some(lane.clone()), true, None);
            let begun = attendance.watch("/".into(), vec![scope()], None);
            begun.await.expect("few");
            Self {
                directory,
                messages,
                attendance,
                lane,
            }
        }

        /// Makes so many changes, one right after the other.
        fn change(&self, numbers: std::ops::Range<u64>) {
            let observer = self.messages.observer();
            for number in numbers {
                observer.tell(WatchedChange {
                    space: "homes/alice".into(),
                    path: format!("/{number}"),
                    kind: ChangeKind::Made,
                    from: None,
                    by: "alice".into(),
                });
            }
        }

        /// What the session is told next, as the task that writes would take it.
        async fn next(&self) -> (u64, String) {
            let event = self.lane.next().await;
            self.lane.note_written(None);
            let event: Event = serde_json::from_slice(&event.json).expect("an event");
            let Event::Changed(event) = event else {
                panic!("{event:?}");
            };
            let kind = format!("{:?}", event.kind).to_lowercase();
            (event.seq, format!("{kind} {}", event.path))
        }

        /// Has all that was asked and told so far done.
        async fn settle(&self) {
            // What waits on either side is taken before what is asked now is answered for a while.
            for _ in 0..100 {
                self.messages.settle().await;
            }
        }
    }

    fn scope() -> WatchScope {
        WatchScope {
            space: "homes/alice".into(),
            inner: "/".into(),
            path: "/".into(),
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
        let mut other = SqliteConnection::connect(&url).await.expect("opened");
        let done = sqlx::raw_sql(statement).execute(&mut other).await;
        done.expect("done");
    }

    #[tokio::test]
    async fn a_session_that_reads_is_told_everything_however_much_it_is() {
        let scene = Scene::new().await;
        let mut last = 0;
        for block in 0..5 {
            let numbers = block * 2000..(block + 1) * 2000;
            scene.change(numbers.clone());
            for number in numbers {
                let (seq, line) = scene.next().await;
                assert_eq!(line, format!("made /{number}"));
                assert!(seq > last);
                last = seq;
            }
        }
    }

    #[tokio::test]
    async fn who_begins_to_watch_does_not_hear_of_what_happened_before_they_asked() {
        let scene = Scene::new().await;
        for round in 0..20 {
            let before = round * 1000..round * 1000 + 900;
            scene.change(before.clone());
            let lane = EventQueue::default();
            let later = scene
                .messages
                .attend(&alice(), Some(lane.clone()), true, None);
            let scopes = vec![scope()];
            let begun = later.watch("/".into(), scopes, None).await.expect("few");
            scene.change(99_999..100_000);
            for number in before.chain([99_999]) {
                let (seq, told) = scene.next().await;
                assert_eq!(told, format!("made /{number}"));
                assert_eq!(seq > begun.seq, number == 99_999, "{seq} {}", begun.seq);
            }
            let event = lane.next().await;
            assert!(
                event
                    .json
                    .ends_with(br#""path":"/99999","kind":"made","by":"alice"}"#)
            );
            assert!(lane.try_next().is_none());
        }
    }

    #[tokio::test]
    async fn changes_that_come_faster_than_they_get_their_places_are_an_overflow() {
        let scene = Scene::new().await;
        // Nothing else runs meanwhile: the sequencer can not take them.
        scene.change(0..2 * WAITING as u64);
        let (mut told, mut overflows) = (0, 0);
        while told < WAITING {
            let (_, line) = scene.next().await;
            if line == "overflow /" {
                overflows += 1;
            } else {
                assert_eq!(line, format!("made /{told}"));
                told += 1;
            }
        }
        assert_eq!(overflows, 1);
        scene.change(7..8);
        assert_eq!(scene.next().await.1, "made /7");
    }

    #[tokio::test]
    async fn a_session_that_does_not_read_costs_no_more_than_its_lane() {
        let scene = Scene::new().await;
        for block in 0..8_u64 {
            scene.change(block * 2000..(block + 1) * 2000);
            scene.settle().await;
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
        // All that is remembered, and what the lane held before.
        assert!((10_000..12_000).contains(&lines.len()), "{}", lines.len());
    }

    #[tokio::test]
    async fn changes_are_told_while_nothing_can_be_kept_but_in_no_place_that_is_not_reserved() {
        let scene = Scene::new().await;
        let fail = "CREATE TRIGGER failing BEFORE UPDATE ON counter \
                    BEGIN SELECT RAISE(ABORT, 'no more'); END";
        execute(scene.directory.path(), fail).await;
        scene.change(0..3000);
        scene.settle().await;
        let reserved: u64 = 2048;
        // The last place tells at once that there are more, to who has not heard all as well.
        let (mut number, mut told) = (0, scene.next().await);
        while told != (reserved, "overflow /".to_owned()) {
            assert_eq!(told, (number + 1, format!("made /{number}")));
            number += 1;
            told = scene.next().await;
        }
        assert!(number < reserved, "{number}");
        scene.settle().await;
        assert!(scene.lane.try_next().is_none());
        assert!(scene.messages.is_failing());
        scene.change(3000..3001);
        scene.settle().await;
        assert!(scene.lane.try_next().is_none());
        execute(scene.directory.path(), "DROP TRIGGER failing").await;
        // Nothing else happens: what was lost meanwhile is told all the same.
        assert_eq!(scene.next().await.1, "overflow /");
        assert!(!scene.messages.is_failing());
        scene.change(3001..3002);
        assert_eq!(scene.next().await.1, "made /3001");
    }

    #[tokio::test]
    async fn a_session_that_has_ended_leaves_nothing_behind() {
        let scene = Scene::new().await;
        scene.change(0..2000);
        scene.settle().await;
        scene.lane.close();
        let shared = Arc::downgrade(&scene.messages.shared);
        drop(scene.attendance);
        scene.messages.settle().await;
        assert!(scene.lane.try_next().is_none());
        drop(scene.messages);
        // The sequencer goes, and nobody who waits for a lane keeps it.
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

//! Tests of watches: examples, and a comparison with a model that remembers everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::messages::watches::*;
use crate::storage::VirtualPath;

const HOME: &str = "homes/alice";
const TEAM: &str = "folders/team";

fn virtual_path(text: &str) -> VirtualPath {
    VirtualPath::parse(text).expect("a path")
}

fn scope(space: &str, inner: &str, path: &str) -> VisiblePath {
    VisiblePath {
        space: space.into(),
        inner: virtual_path(inner),
        path: virtual_path(path),
        hidden: Vec::new(),
    }
}

/// The scopes of the root for a member of the folder.
fn root() -> Vec<VisiblePath> {
    let mut home = scope(HOME, "/", "/");
    home.hidden = vec!["team".into()];
    vec![home, scope(TEAM, "/", "/team")]
}

fn change(space: &str, path: &str, kind: ChangeKind) -> FileChange {
    FileChange {
        space: space.into(),
        path: virtual_path(path),
        kind,
        from: None,
        by: "bob".into(),
    }
}

fn written(space: &str, path: &str) -> FileChange {
    change(space, path, ChangeKind::Written)
}

fn moved(from: (&str, &str), to: (&str, &str)) -> FileChange {
    FileChange {
        from: Some((from.0.into(), virtual_path(from.1))),
        ..change(to.0, to.1, ChangeKind::Moved)
    }
}

fn describe(event: &Changed) -> String {
    let kind = format!("{:?}", event.kind).to_lowercase();
    let from = event.from.as_ref().map(|from| format!(" < {from}"));
    let (seq, path) = (event.seq, &event.path);
    format!("{seq} {kind} {path}{}", from.unwrap_or_default())
}

/// Records a change, and returns the event for each session that is up to date.
fn record(watches: &mut Watches<u8>, seq: u64, change: FileChange) -> Vec<(u8, String)> {
    let events = watches.record(seq, change);
    let events = events
        .iter()
        .map(|(session, event)| (*session, describe(event)));
    events.collect()
}

fn watch(
    watches: &mut Watches<u8>,
    path: &str,
    scopes: Vec<VisiblePath>,
    since: Option<u64>,
    now: u64,
) {
    let number = watches.watch(1, path.to_owned(), scopes, since, now);
    number.expect("fewer than the limit");
}

/// The events of a catch-up of session 1 whose queue has `free_slots`.
fn catch_up(watches: &mut Watches<u8>, free_slots: usize) -> (Vec<String>, bool) {
    let mut events = Vec::new();
    let done = watches.catch_up(1, usize::MAX, |event| {
        let fits = events.len() < free_slots;
        if fits {
            events.push(describe(&event));
        }
        fits
    });
    (events, done == CatchUpProgress::Done)
}

#[test]
fn a_session_receives_the_changes_of_its_watched_paths_only() {
    let mut watches = Watches::new(0);
    watch(&mut watches, "/a", vec![scope(HOME, "/a", "/a")], None, 0);
    let events = record(&mut watches, 1, written(HOME, "/a/b"));
    assert_eq!(events, [(1, "1 written /a/b".to_owned())]);
    assert!(record(&mut watches, 2, written(HOME, "/b")).is_empty());
    assert!(record(&mut watches, 3, written(TEAM, "/a/b")).is_empty());
    assert!(watches.unwatch(1, 1) && !watches.unwatch(1, 1));
    assert!(record(&mut watches, 4, written(HOME, "/a/b")).is_empty());
    assert!(watches.spaces.is_empty() && watches.sessions.is_empty());
}

#[test]
fn a_watch_on_the_root_covers_home_and_folders_without_hidden_names() {
    let mut watches = Watches::new(0);
    watch(&mut watches, "/", root(), None, 0);
    let events = record(&mut watches, 1, written(TEAM, "/a"));
    assert_eq!(events, [(1, "1 written /team/a".to_owned())]);
    let events = record(&mut watches, 2, written(HOME, "/a"));
    assert_eq!(events, [(1, "2 written /a".to_owned())]);
    assert!(record(&mut watches, 3, written(HOME, "/team/a")).is_empty());
    let events = record(&mut watches, 4, moved((HOME, "/team/a"), (HOME, "/b")));
    assert_eq!(events, [(1, "4 moved /b".to_owned())]);
    let events = record(&mut watches, 5, moved((HOME, "/b"), (TEAM, "/b")));
    assert_eq!(events, [(1, "5 moved /team/b < /b".to_owned())]);
}

#[test]
fn one_change_is_one_event_for_any_number_of_watches() {
    let mut watches = Watches::new(0);
    watch(&mut watches, "/", root(), None, 0);
    watch(&mut watches, "/a", vec![scope(HOME, "/a", "/a")], None, 0);
    let events = record(&mut watches, 1, moved((HOME, "/a/b"), (TEAM, "/b")));
    assert_eq!(events, [(1, "1 moved /team/b < /a/b".to_owned())]);
}

#[test]
fn a_move_is_reported_by_each_end_that_is_watched() {
    let mut watches = Watches::new(0);
    for (session, path) in [(1, "/a"), (2, "/b")] {
        let scopes = vec![scope(HOME, path, path)];
        let number = watches.watch(session, path.to_owned(), scopes, None, 0);
        number.expect("fewer than the limit");
    }
    let events = record(&mut watches, 1, moved((HOME, "/a/x"), (HOME, "/b/x")));
    let (removed, moved_here) = ("1 removed /a/x".to_owned(), "1 moved /b/x".to_owned());
    assert_eq!(events, [(1, removed), (2, moved_here)]);
}

#[test]
fn a_change_of_a_directory_above_is_reported() {
    let mut watches = Watches::new(0);
    let scopes = vec![scope(HOME, "/a/b/c", "/a/b/c")];
    watch(&mut watches, "/a/b/c", scopes, None, 0);
    let removed = change(HOME, "/a", ChangeKind::Removed);
    let events = record(&mut watches, 1, removed);
    assert_eq!(events, [(1, "1 removed /a".to_owned())]);
    let events = record(&mut watches, 2, moved((HOME, "/x"), (HOME, "/a")));
    assert_eq!(events, [(1, "2 moved /a".to_owned())]);
    let events = record(&mut watches, 3, moved((HOME, "/a/b"), (HOME, "/x")));
    assert_eq!(events, [(1, "3 removed /a/b".to_owned())]);
}

#[test]
fn a_session_that_resumes_receives_missed_changes_once_and_in_order() {
    let mut watches = Watches::new(0);
    for seq in 1..=4 {
        record(&mut watches, seq, written(HOME, "/a"));
    }
    watch(&mut watches, "/", root(), Some(2), 4);
    assert!(record(&mut watches, 5, written(HOME, "/b")).is_empty());
    let (events, done) = catch_up(&mut watches, 1);
    assert_eq!((events, done), (vec!["3 written /a".to_owned()], false));
    let (events, done) = catch_up(&mut watches, 9);
    assert_eq!(events, ["4 written /a", "5 written /b"]);
    assert!(done && !watches.is_behind(1));
    assert_eq!(record(&mut watches, 6, written(HOME, "/a")).len(), 1);
    assert!(catch_up(&mut watches, 9).0.is_empty());
}

#[test]
fn a_second_watch_that_resumes_does_not_repeat_changes_of_the_first() {
    let mut watches = Watches::new(0);
    watch(&mut watches, "/a", vec![scope(HOME, "/a", "/a")], None, 0);
    assert_eq!(record(&mut watches, 1, written(HOME, "/a/x")).len(), 1);
    assert!(record(&mut watches, 2, written(HOME, "/b")).is_empty());
    watch(&mut watches, "/", root(), Some(0), 2);
    let (events, done) = catch_up(&mut watches, 9);
    assert_eq!((events, done), (vec!["2 written /b".to_owned()], true));
}

#[test]
fn forgotten_changes_become_an_overflow_of_each_watched_path() {
    for since in [0, 1] {
        let mut watches = Watches::with_capacity(2, usize::MAX, 0);
        for seq in 1..=4 {
            record(&mut watches, seq, written(HOME, "/a"));
        }
        watch(&mut watches, "/", root(), Some(since), 4);
        watch(&mut watches, "/a", vec![scope(HOME, "/a", "/a")], None, 4);
        let (events, _) = catch_up(&mut watches, 9);
        assert_eq!(events, ["2 overflow /", "3 written /a", "4 written /a"]);
    }
    let mut watches = Watches::with_capacity(2, usize::MAX, 100);
    watch(&mut watches, "/", root(), Some(99), 100);
    assert_eq!(catch_up(&mut watches, 9).0, ["100 overflow /"]);
}

#[test]
fn a_seq_of_another_server_causes_an_overflow() {
    let mut watches = Watches::new(10);
    watch(&mut watches, "/", root(), Some(11), 10);
    assert_eq!(catch_up(&mut watches, 9).0, ["10 overflow /"]);
    watch(
        &mut watches,
        "/a",
        vec![scope(HOME, "/a", "/a")],
        Some(10),
        10,
    );
    assert!(!watches.is_behind(1));
}

#[test]
fn a_session_with_a_full_queue_catches_up_or_receives_an_overflow() {
    let mut watches = Watches::with_capacity(3, usize::MAX, 0);
    watch(&mut watches, "/", root(), None, 0);
    assert_eq!(record(&mut watches, 1, written(HOME, "/a")).len(), 1);
    watches.mark_behind(1, 1);
    assert!(record(&mut watches, 2, written(HOME, "/b")).is_empty());
    let (events, _) = catch_up(&mut watches, 9);
    assert_eq!(events, ["1 written /a", "2 written /b"]);
    watches.mark_behind(1, 2);
    for seq in 3..=6 {
        record(&mut watches, seq, written(HOME, "/c"));
    }
    assert_eq!(catch_up(&mut watches, 0), (vec![], false));
    let (events, _) = catch_up(&mut watches, 2);
    assert_eq!(events, ["3 overflow /", "4 written /c"]);
    let (events, _) = catch_up(&mut watches, 9);
    assert_eq!(events, ["5 written /c", "6 written /c"]);
}

#[test]
fn lost_changes_cause_an_overflow_for_each_watching_session() {
    let mut watches = Watches::new(0);
    watch(&mut watches, "/", root(), None, 0);
    record(&mut watches, 1, written(HOME, "/a"));
    watches.mark_lost(2);
    assert_eq!(watches.sessions_behind().collect::<Vec<_>>(), [1]);
    watch(&mut watches, "/a", vec![scope(HOME, "/a", "/a")], None, 2);
    assert_eq!(catch_up(&mut watches, 9).0, ["2 overflow /"]);
}

#[test]
fn a_changed_scope_hides_changes_and_causes_an_overflow() {
    let mut watches = Watches::new(0);
    watch(
        &mut watches,
        "/team",
        vec![scope(TEAM, "/", "/team")],
        None,
        0,
    );
    watches.set_scopes(1, 1, vec![scope(TEAM, "/", "/team")], 0);
    assert!(!watches.is_behind(1), "the scopes did not change");
    watches.set_scopes(1, 1, Vec::new(), 3);
    assert!(record(&mut watches, 4, written(TEAM, "/a")).is_empty());
    assert_eq!(catch_up(&mut watches, 9).0, ["3 overflow /team"]);
    assert!(record(&mut watches, 5, written(TEAM, "/a")).is_empty());
    watches.set_scopes(1, 1, vec![scope(TEAM, "/", "/team")], 5);
    assert_eq!(catch_up(&mut watches, 9).0, ["5 overflow /team"]);
    assert_eq!(record(&mut watches, 6, written(TEAM, "/a")).len(), 1);
}

#[test]
fn the_number_of_watches_of_a_session_is_limited() {
    let mut watches = Watches::new(0);
    let mut add = || watches.watch(1, "/".to_owned(), root(), None, 0);
    for expected in 1..=MAX_WATCHES {
        assert_eq!(add().ok().map(|number| number as usize), Some(expected));
    }
    assert_eq!(add(), Err(TooManyWatches));
    assert!(watches.unwatch(1, 7));
    assert!(watches.watch(1, "/".to_owned(), root(), None, 0).is_ok());
    watches.remove_session(1);
    assert!(watches.spaces.is_empty() && watches.list(1).is_empty());
}

/// A step of a random sequence.
#[derive(Debug, Clone)]
enum WatchStep {
    Change(FileChange),
    Lose,
    Watch(u8, Vec<VisiblePath>, Option<u64>),
    Unwatch(u8, usize),
    SetScopes(u8, usize, Vec<VisiblePath>),
    /// Whether the session's queue has space from now on.
    QueueSpace(u8, bool),
}

fn a_path() -> impl Strategy<Value = String> {
    "(/[ab]){1,3}"
}

fn a_space_and_path() -> impl Strategy<Value = (Arc<str>, String)> {
    let space = prop_oneof![Just(HOME), Just(TEAM), Just("homes/bob")];
    (space.prop_map(Into::into), a_path())
}

fn a_change() -> impl Strategy<Value = FileChange> {
    use ChangeKind::{Made, Moved, Removed, Written};
    let kind = prop_oneof![Just(Written), Just(Removed), Just(Made)];
    (
        a_space_and_path(),
        kind,
        proptest::option::of(a_space_and_path()),
    )
        .prop_map(|((space, path), kind, from)| FileChange {
            kind: if from.is_some() { Moved } else { kind },
            from: from.map(|(space, path)| (space, virtual_path(&path))),
            ..written(&space, &path)
        })
}

fn scopes() -> impl Strategy<Value = Vec<VisiblePath>> {
    prop_oneof![
        Just(root()),
        Just(Vec::new()),
        a_path().prop_map(|path| vec![scope(HOME, &path, &path)]),
        a_path().prop_map(|path| vec![scope(TEAM, &path, &format!("/team{path}"))]),
    ]
}

fn a_step() -> impl Strategy<Value = WatchStep> {
    let session = || 0..3_u8;
    let since = || proptest::option::of(0..40_u64);
    prop_oneof![
        8 => a_change().prop_map(WatchStep::Change),
        1 => Just(WatchStep::Lose),
        3 => (session(), scopes(), since()).prop_map(|(session, scopes, since)| WatchStep::Watch(session, scopes, since)),
        1 => (session(), 0..4_usize).prop_map(|(session, index)| WatchStep::Unwatch(session, index)),
        1 => (session(), 0..4_usize, scopes()).prop_map(|(session, index, scopes)| WatchStep::SetScopes(session, index, scopes)),
        3 => (session(), any::<bool>()).prop_map(|(session, has_space)| WatchStep::QueueSpace(session, has_space)),
    ]
}

/// Whether a scope covers the path or a directory of it, by comparing names.
fn covers_by_names(scopes: &[VisiblePath], (space, path): (&str, &str)) -> bool {
    let names = |path: &str| -> Vec<String> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    };
    scopes.iter().any(|scope| {
        let (path, inner) = (names(path), names(scope.inner.as_str()));
        let common = path.len().min(inner.len());
        let is_hidden = scope.hidden.contains(&path[0]);
        *scope.space == *space && path[..common] == inner[..common] && !is_hidden
    })
}

fn is_covered_by_names(scopes: &[VisiblePath], change: &FileChange) -> bool {
    let from = change.from.as_ref();
    covers_by_names(scopes, (&change.space, change.path.as_str()))
        || from.is_some_and(|(space, path)| covers_by_names(scopes, (space, path.as_str())))
}

/// All changes, and the events that each session has received and must receive.
#[derive(Default)]
struct WatchModel {
    now: u64,
    history: Vec<(u64, FileChange)>,
    has_queue_space: BTreeMap<u8, bool>,
    /// By session and number: the scopes, and after index `seq` they hold.
    watches: BTreeMap<(u8, u32), (Vec<VisiblePath>, u64)>,
    received: BTreeMap<u8, BTreeSet<u64>>,
    /// Events that were sent for a watch that has ended.
    may_repeat: BTreeSet<(u8, u64)>,
    /// The `seq` of the last overflow event of each watch.
    overflows: BTreeMap<(u8, u32), u64>,
}

impl WatchModel {
    /// Records an event that a session receives, and asserts that it must receive it.
    fn receive(&mut self, session: u8, event: &Changed) {
        if event.kind == ChangeKind::Overflow {
            // In the model, the path of each watch contains its number.
            let number: u32 = event.path[1..].parse().expect("a number");
            self.overflows.insert((session, number), event.seq);
            return;
        }
        let is_new = self.received.entry(session).or_default().insert(event.seq);
        let may_repeat = self.may_repeat.remove(&(session, event.seq));
        assert!(is_new || may_repeat, "{session}: {} twice", describe(event));
        let (_, change) = self
            .history
            .iter()
            .find(|(seq, _)| *seq == event.seq)
            .expect("a recorded change");
        let own = self.watches.range((session, 0)..=(session, u32::MAX));
        let mut own = own.filter(|(_, (_, since))| event.seq > *since);
        let is_expected = own.any(|(_, (scopes, _))| is_covered_by_names(scopes, change));
        assert!(
            is_expected,
            "{session} must not receive {}",
            describe(event)
        );
    }

    /// Asserts that a session that is not behind has received every change since its last overflow event.
    fn assert_complete(&self, session: u8) {
        for ((owner, number), (scopes, since)) in &self.watches {
            let overflow = self.overflows.get(&(*owner, *number)).copied();
            let from = overflow.unwrap_or(0).max(*since);
            for (seq, change) in &self.history {
                if *owner == session && *seq > from && is_covered_by_names(scopes, change) {
                    let received = self.received.get(&session);
                    let has_received = received.is_some_and(|received| received.contains(seq));
                    assert!(has_received, "{session} has missed {seq}: {change:?}");
                }
            }
        }
    }

    fn allow_repeats(&mut self, session: u8) {
        let received = self.received.get(&session).into_iter().flatten();
        self.may_repeat.extend(received.map(|seq| (session, *seq)));
    }

    fn numbers(&self, session: u8) -> Vec<u32> {
        let own = self.watches.range((session, 0)..=(session, u32::MAX));
        own.map(|((_, number), _)| *number).collect()
    }
}

fn catch_up_sessions(watches: &mut Watches<u8>, model: &mut WatchModel, only: Option<u8>) {
    for session in 0..3 {
        if only.is_some_and(|only| only != session) {
            continue;
        }
        let done = watches.catch_up(session, usize::MAX, |event| {
            model.receive(session, &event);
            true
        });
        assert!(done == CatchUpProgress::Done && !watches.is_behind(session));
        model.assert_complete(session);
    }
}

fn apply(watches: &mut Watches<u8>, model: &mut WatchModel, step: WatchStep) {
    match step {
        WatchStep::Change(change) => {
            model.now += 1;
            model.history.push((model.now, change.clone()));
            for (session, event) in watches.record(model.now, change) {
                if model.has_queue_space.get(&session) == Some(&false) {
                    watches.mark_behind(session, model.now);
                } else {
                    model.receive(session, &event);
                }
            }
        }
        WatchStep::Lose => {
            model.now += 1;
            watches.mark_lost(model.now);
        }
        WatchStep::Watch(session, scopes, since) => {
            let now = model.now;
            let last = watches
                .sessions
                .get(&session)
                .map_or(0, |entry| entry.last_number);
            let path = format!("/{}", last + 1);
            let Ok(number) = watches.watch(session, path, scopes.clone(), since, now) else {
                return;
            };
            let since = since.unwrap_or(now).min(now);
            model.watches.insert((session, number), (scopes, since));
        }
        WatchStep::Unwatch(session, index) => {
            catch_up_sessions(watches, model, Some(session));
            if let Some(number) = model.numbers(session).get(index) {
                assert!(watches.unwatch(session, *number));
                model.watches.remove(&(session, *number));
                model.overflows.remove(&(session, *number));
                model.allow_repeats(session);
            }
        }
        WatchStep::SetScopes(session, index, scopes) => {
            catch_up_sessions(watches, model, Some(session));
            if let Some(number) = model.numbers(session).get(index) {
                watches.set_scopes(session, *number, scopes.clone(), model.now);
                let watch = model.watches.get_mut(&(session, *number));
                let watch = watch.expect("a watch of the model");
                if watch.0 != scopes {
                    *watch = (scopes, model.now);
                }
                model.allow_repeats(session);
            }
        }
        WatchStep::QueueSpace(session, has_space) => {
            model.has_queue_space.insert(session, has_space);
            if has_space {
                catch_up_sessions(watches, model, Some(session));
            }
        }
    }
}

proptest! {
    #[test]
    fn each_session_receives_each_change_that_it_may_see_once_or_an_overflow(
        steps in proptest::collection::vec(a_step(), 1..60),
        remembered in 0..12_usize,
    ) {
        let mut watches = Watches::with_capacity(remembered, usize::MAX, 0);
        let mut model = WatchModel::default();
        for step in steps {
            apply(&mut watches, &mut model, step);
        }
        catch_up_sessions(&mut watches, &mut model, None);
        for (space, watching) in &watches.spaces {
            for session in watching {
                let entry = &watches.sessions[session];
                prop_assert!(entry.spaces.contains(space));
            }
        }
    }
}

#[test]
fn a_catch_up_examines_a_bounded_number_of_changes_per_step() {
    let mut watches = Watches::new(0);
    for seq in 1..=10 {
        record(&mut watches, seq, written(HOME, &format!("/{seq}")));
    }
    watch(
        &mut watches,
        "/9",
        vec![scope(HOME, "/9", "/9")],
        Some(0),
        10,
    );
    let mut events = Vec::new();
    let mut steps = Vec::new();
    while steps.last() != Some(&CatchUpProgress::Done) {
        let step = watches.catch_up(1, 4, |event| {
            events.push(describe(&event));
            true
        });
        steps.push(step);
    }
    assert_eq!(events, ["9 written /9"]);
    assert_eq!(
        steps,
        [
            CatchUpProgress::More,
            CatchUpProgress::More,
            CatchUpProgress::Done
        ]
    );
    watch(&mut watches, "/", vec![scope(HOME, "/", "/")], Some(8), 10);
    assert_eq!(watches.catch_up(1, 1, |_| true), CatchUpProgress::More);
    let (events, done) = catch_up(&mut watches, 9);
    assert_eq!((events, done), (vec!["10 written /10".to_owned()], true));
}

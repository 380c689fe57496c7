use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::Clock;
use crate::database;
use crate::messages::store::event_counts::EventCounts;
use crate::messages::store::query::{BACKLOG, DIRECT_HISTORY, HistoryQuery, ROOM_HISTORY};
use crate::messages::store::writer::retention::{DELETE_OF_SENDER, DELETE_OLD};
use crate::messages::store::{MIGRATIONS, copy, offers};
use crate::messages::{Messages, MessagesError, OfferedFile, Recipient, RoomName, UserRef};
use crate::protocol::Event;

fn user(id: i64) -> UserRef {
    let name = format!("user{id}").into();
    UserRef { id, name }
}

const DAY: Duration = Duration::from_hours(24);

async fn open(directory: &tempfile::TempDir, clock: &Clock) -> Messages {
    let messages = Messages::open_with(directory.path(), clock.clone()).await;
    messages.expect("messages")
}

/// The texts of the stored messages and the paths of the offers to a user.
async fn backlog_of(messages: &Messages, id: i64) -> Vec<String> {
    let backlog = messages.shared.store.backlog(id, 0, 1000).await;
    let events = backlog.expect("readable").events.into_iter();
    let events = events.map(|(_, json)| match serde_json::from_slice(&json) {
        Ok(Event::Message(message)) => message.text,
        Ok(Event::Offer(offer)) => offer.path,
        other => panic!("{other:?}"),
    });
    events.collect()
}

async fn messages() -> (tempfile::TempDir, Messages) {
    let directory = tempfile::tempdir().expect("a directory");
    let messages = Messages::open(directory.path()).await.expect("messages");
    (directory, messages)
}

async fn say(messages: &Messages, from: i64, to: Recipient, text: &str) -> u64 {
    let pending = messages.say(user(from), to, text.into()).await;
    pending.expect("a text").stored().await.expect("stored").seq
}

/// The steps of the query plan of `SQLite`.
async fn plan(messages: &Messages, query: &str) -> Vec<String> {
    let readers = &messages.shared.store.readers;
    let mut transaction = readers.read().await.expect("readable");
    let query = format!("EXPLAIN QUERY PLAN {query}");
    let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .fetch_all(&mut *transaction)
        .await
        .expect("a plan");
    steps.into_iter().map(|(_, _, _, step)| step).collect()
}

#[tokio::test]
async fn no_query_scans_a_table_or_sorts_a_conversation() {
    let (_directory, messages) = messages().await;
    let tables = ["events", "offers", "members", "inboxes", "said", "e", "o"];
    let claim = format!("{} WHERE offer = ?1", offers::SELECT_OFFERS);
    let open = format!(
        "{} WHERE offered_to = ? AND ends > ? ORDER BY event",
        offers::SELECT_OFFERS
    );
    for query in [
        ROOM_HISTORY,
        DIRECT_HISTORY,
        BACKLOG,
        DELETE_OLD,
        DELETE_OF_SENDER,
        offers::CLOSE_OFFER,
        offers::EXPIRE_OFFERS,
        offers::HAS_EXPIRED_OFFERS,
        offers::COUNT_OPEN_OFFERS,
        &claim,
        &open,
    ] {
        let plan = plan(&messages, query).await;
        for table in tables {
            let scan = format!("SCAN {table}");
            let scans = |step: &String| step.split(" USING").next() == Some(scan.as_str());
            assert!(!plan.iter().any(scans), "{query}\n{plan:#?}");
        }
        // The backlog sorts sequence numbers: from each of its sources at most one page.
        let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorts || query == BACKLOG, "{query}\n{plan:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_read_while_messages_are_stored_skips_none() {
    let (_directory, messages) = messages().await;
    let rooms: Vec<RoomName> = ["#a", "#b", "#c"]
        .into_iter()
        .map(|room| room.parse().expect("a room"))
        .collect();
    for room in &rooms {
        for id in [1, 2] {
            let joined = messages.join(user(id), room.clone()).await;
            joined.expect("joined");
        }
    }
    let sender = tokio::spawn({
        let messages = messages.clone();
        async move {
            let mut sent = BTreeSet::new();
            for number in 0..3000 {
                let to = match number % 4 {
                    0 => Recipient::User(user(1)),
                    room => Recipient::Room(rooms[room - 1].clone()),
                };
                sent.insert(say(&messages, 2, to, "hello").await);
            }
            sent
        }
    });
    let (mut received, mut position) = (BTreeSet::new(), 0);
    loop {
        let is_last = sender.is_finished();
        let backlog = messages.shared.store.backlog(1, position, 8).await;
        let backlog = backlog.expect("readable");
        received.extend(backlog.events.iter().map(|(seq, _)| *seq));
        position = backlog.position;
        if is_last && backlog.is_complete {
            break;
        }
    }
    let sent = sender.await.expect("no panic");
    let missing: Vec<_> = sent.difference(&received).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_backlog_skips_own_messages_page_by_page() {
    let (_directory, messages) = messages().await;
    let room: RoomName = "#ops".parse().expect("a room");
    for id in [1, 2] {
        let joined = messages.join(user(id), room.clone()).await;
        joined.expect("joined");
    }
    for _ in 0..20 {
        say(&messages, 1, Recipient::Room(room.clone()), "mine").await;
    }
    let last = say(&messages, 2, Recipient::Room(room.clone()), "yours").await;
    let (mut position, mut pages) = (0, 0);
    let first = loop {
        let backlog = messages.shared.store.backlog(1, position, 8).await;
        let backlog = backlog.expect("readable");
        (position, pages) = (backlog.position, pages + 1);
        if !backlog.events.is_empty() {
            break backlog.events[0].0;
        }
        assert!(!backlog.is_complete);
    };
    assert_eq!((first, pages), (last, 3));
}

#[tokio::test]
async fn the_history_of_a_user_with_themselves_has_each_message_once() {
    let (_directory, messages) = messages().await;
    say(&messages, 1, Recipient::User(user(1)), "note").await;
    say(&messages, 1, Recipient::User(user(2)), "to you").await;
    say(&messages, 2, Recipient::User(user(1)), "to me").await;
    let history = async |with| {
        let query = HistoryQuery {
            user: user(1),
            with: Recipient::User(user(with)),
            before: None,
            limit: 10,
            max_json_bytes: 1 << 16,
        };
        let page = messages.history(&query).await.expect("readable");
        let texts = page.messages.into_iter().map(|message| message.text);
        (texts.collect::<Vec<_>>(), page.more)
    };
    assert_eq!(history(1).await, (vec!["note".to_owned()], false));
    let both = vec!["to you".to_owned(), "to me".to_owned()];
    assert_eq!(history(2).await, (both, false));
}

#[tokio::test]
async fn a_wrong_wall_clock_deletes_no_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual();
    let messages = open(&directory, &clock).await;
    let right = clock.wall();
    for (number, wall) in ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z"]
        .into_iter()
        .enumerate()
    {
        clock.set_wall(wall.parse().expect("a time"));
        say(
            &messages,
            2,
            Recipient::User(user(1)),
            &format!("wrong {number}"),
        )
        .await;
        assert_eq!(messages.prune(90 * DAY, 1000).await.expect("readable"), 0);
        clock.set_wall(right);
        say(
            &messages,
            2,
            Recipient::User(user(1)),
            &format!("right {number}"),
        )
        .await;
        for _ in 0..3 {
            clock.advance(DAY);
            assert_eq!(messages.prune(90 * DAY, 1000).await.expect("readable"), 0);
        }
    }
    let all = ["wrong 0", "right 0", "wrong 1", "right 1"];
    assert_eq!(backlog_of(&messages, 1).await, all);
    clock.advance(85 * DAY);
    assert_eq!(messages.prune(90 * DAY, 1000).await.expect("dropped"), 2);
    assert_eq!(backlog_of(&messages, 1).await, all[2..]);
}

#[tokio::test]
async fn the_age_of_an_event_continues_from_the_uptime_of_earlier_servers() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual();
    let messages = open(&directory, &clock).await;
    say(&messages, 2, Recipient::User(user(1)), "old").await;
    let offering = messages.offer(user(2), user(1), file(), 7 * DAY).await;
    offering.expect("made").1.stored().await.expect("stored");
    clock.advance(6 * DAY);
    assert_eq!(messages.prune(10 * DAY, 1000).await.expect("readable"), 0);
    messages.expire_offers().await.expect("readable");
    drop(messages);
    // After a reboot the clock starts at zero, and the time without a server does not count.
    let clock = Clock::manual();
    clock.set_wall("2099-01-01T00:00:00Z".parse().expect("a time"));
    let messages = open(&directory, &clock).await;
    assert_eq!(messages.prune(10 * DAY, 1000).await.expect("readable"), 0);
    messages.expire_offers().await.expect("readable");
    clock.set_wall("2026-03-07T12:00:00Z".parse().expect("a time"));
    assert_eq!(backlog_of(&messages, 1).await, ["old", "a b"]);
    clock.advance(DAY);
    messages.expire_offers().await.expect("removed");
    assert_eq!(backlog_of(&messages, 1).await, ["old"]);
    clock.advance(3 * DAY);
    assert_eq!(messages.prune(10 * DAY, 1000).await.expect("dropped"), 1);
}

fn file() -> OfferedFile {
    OfferedFile {
        path: "/secret/a b".into(),
        version: "1".into(),
        size: 7,
    }
}

#[tokio::test]
async fn no_sender_displaces_the_messages_of_others() {
    let (_directory, messages) = messages().await;
    for text in ["one", "two", "three"] {
        say(&messages, 2, Recipient::User(user(1)), text).await;
    }
    for number in 0..50 {
        say(&messages, 3, Recipient::User(user(1)), &number.to_string()).await;
    }
    let dropped = messages.prune(DAY, 20).await.expect("dropped");
    assert_eq!(dropped, 33);
    let backlog = backlog_of(&messages, 1).await;
    assert_eq!(backlog[..4], ["one", "two", "three", "33"]);
    assert_eq!(backlog.len(), 20);
}

#[tokio::test]
async fn a_pruned_offer_is_no_longer_open() {
    let (_directory, messages) = messages().await;
    let offering = messages.offer(user(2), user(1), file(), DAY).await;
    let (offer, stored) = offering.expect("made");
    stored.stored().await.expect("stored");
    for _ in 0..3 {
        say(&messages, 2, Recipient::User(user(1)), "later").await;
    }
    assert_eq!(messages.prune(DAY, 2).await.expect("dropped"), 2);
    let claimed = messages.claim_to_accept(1, &offer).await;
    assert!(matches!(claimed, Err(MessagesError::NoSuchOffer)));
    let open = messages.offers(1, false, 1 << 16).await.expect("readable");
    assert!(open.offers.is_empty());
    assert_eq!(backlog_of(&messages, 1).await, ["later", "later"]);
}

#[test]
fn shares_are_equal_and_senders_below_their_share_leave_the_remainder_to_others() {
    let mut counts = EventCounts::default();
    for (sender, events) in [(1, 10), (2, 50), (3, 100), (4, 3)] {
        counts.add(sender, events);
    }
    let surplus = |most| {
        let mut surplus = counts.surplus(most);
        surplus.sort_unstable();
        surplus
    };
    assert_eq!(surplus(163), []);
    assert_eq!(surplus(162), [(3, 1)]);
    assert_eq!(surplus(93), [(2, 10), (3, 60)]);
    assert_eq!(surplus(13), [(1, 7), (2, 47), (3, 97)]);
    assert_eq!(surplus(0), [(1, 10), (2, 50), (3, 100), (4, 3)]);
}

/// Makes every change of the database fail as on a full disk, where `SQLite` rolls back the
/// transaction.
pub(crate) async fn fill_disk(directory: &tempfile::TempDir) {
    execute(
        directory,
        "CREATE TRIGGER full_events BEFORE INSERT ON events \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
         CREATE TRIGGER full_members BEFORE INSERT ON members \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
         CREATE TRIGGER full_left BEFORE DELETE ON members \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
         CREATE TRIGGER full_inboxes BEFORE INSERT ON inboxes \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END; \
         CREATE TRIGGER full_counter BEFORE UPDATE ON counter \
         BEGIN SELECT RAISE(ROLLBACK, 'the disk is full'); END",
    )
    .await;
}

/// Undoes [`fill_disk`].
pub(crate) async fn free_disk(directory: &tempfile::TempDir) {
    execute(
        directory,
        "DROP TRIGGER full_events; DROP TRIGGER full_members; DROP TRIGGER full_left; \
         DROP TRIGGER full_inboxes; DROP TRIGGER full_counter",
    )
    .await;
}

async fn execute(directory: &tempfile::TempDir, statements: &'static str) {
    let file = directory.path().join("messages.db");
    let mut connection = database::connect(&file).await.expect("opens");
    let outcome = sqlx::raw_sql(statements).execute(&mut connection).await;
    outcome.expect("executed");
}

#[tokio::test]
async fn messages_are_stored_again_after_a_full_disk_without_a_restart() {
    let (directory, messages) = messages().await;
    let room: RoomName = "#ops".parse().expect("a room");
    for id in [1, 2] {
        let joined = messages.join(user(id), room.clone()).await;
        joined.expect("joined");
    }
    fill_disk(&directory).await;
    for _ in 0..3 {
        let pending = messages
            .say(user(1), Recipient::User(user(2)), "lost".into())
            .await;
        pending.expect("a text").stored().await.expect_err("full");
        let joined = messages.join(user(3), room.clone()).await;
        joined.expect_err("full");
        let left = messages.leave(user(2), room.clone()).await;
        left.expect_err("full");
        let offering = messages.offer(user(1), user(2), file(), DAY).await;
        offering
            .expect("random")
            .1
            .stored()
            .await
            .expect_err("full");
        assert!(messages.is_failing());
    }
    // The failed join and the failed leave have changed nothing.
    let pending = messages.say(user(3), Recipient::Room(room.clone()), "hello".into());
    let refused = pending.await.expect("a text").stored().await;
    assert!(matches!(refused, Err(MessagesError::NotInRoom(_))));
    free_disk(&directory).await;
    say(&messages, 1, Recipient::User(user(2)), "stored").await;
    assert!(!messages.is_failing());
    say(&messages, 1, Recipient::Room(room.clone()), "stored too").await;
    let joined = messages.join(user(3), room).await.expect("joined");
    assert_eq!(joined.members, ["user1", "user2", "user3"]);
    let offering = messages.offer(user(1), user(2), file(), DAY).await;
    offering.expect("random").1.stored().await.expect("stored");
    assert_eq!(
        backlog_of(&messages, 2).await,
        ["stored", "stored too", "a b"]
    );
    assert_eq!(backlog_of(&messages, 3).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_commit_is_retried_without_further_messages() {
    let (directory, messages) = messages().await;
    fill_disk(&directory).await;
    let pending = messages
        .say(user(1), Recipient::User(user(2)), "lost".into())
        .await;
    pending.expect("a text").stored().await.expect_err("full");
    assert!(messages.is_failing());
    free_disk(&directory).await;
    while messages.is_failing() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_user_who_leaves_and_rejoins_receives_no_message_in_between() {
    let (_directory, messages) = messages().await;
    let room: RoomName = "#ops".parse().expect("a room");
    for id in [1, 2] {
        let joined = messages.join(user(id), room.clone()).await;
        joined.expect("joined");
    }
    // One batch stores all four.
    let leaving = messages.leave(user(1), room.clone());
    let sending = async {
        let pending = messages.say(user(2), Recipient::Room(room.clone()), "gone?".into());
        pending
            .await
            .expect("a text")
            .stored()
            .await
            .expect("stored")
    };
    let joining = messages.join(user(1), room.clone());
    let sending_again = async {
        let pending = messages.say(user(2), Recipient::Room(room.clone()), "back!".into());
        pending
            .await
            .expect("a text")
            .stored()
            .await
            .expect("stored")
    };
    let (left, _, joined, _) = tokio::join!(leaving, sending, joining, sending_again);
    left.expect("left");
    joined.expect("joined");
    assert_eq!(backlog_of(&messages, 1).await, ["back!"]);
}

#[tokio::test]
async fn a_restored_database_does_not_know_a_seq_that_it_did_not_issue() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual();
    let messages = open(&directory, &clock).await;
    let first = messages.epoch().to_owned();
    let early = say(&messages, 1, Recipient::User(user(2)), "early").await;
    let backup = tempfile::tempdir().expect("a directory");
    let to = backup.path().join("messages.db");
    copy(directory.path(), &to).await.expect("copied");
    drop(messages);
    let messages = open(&directory, &clock).await;
    let second = messages.epoch().to_owned();
    let late = say(&messages, 1, Recipient::User(user(2)), "late").await;
    for (seq, epoch) in [(early, &first), (early, &second), (late, &second)] {
        assert!(messages.has_issued(seq, Some(epoch)));
    }
    assert!(!messages.has_issued(late, Some(&first)));
    drop(messages);
    let restored = open(&backup, &clock).await;
    assert!(restored.has_issued(early, Some(&first)));
    for (seq, epoch) in [(late, &first), (late, &second), (early, &second)] {
        assert!(!restored.has_issued(seq, Some(epoch)));
    }
    // New numbers are greater than all that the server may have issued before the backup.
    let next = say(&restored, 1, Recipient::User(user(2)), "again").await;
    assert!(restored.has_issued(next, Some(restored.epoch())));
    assert!(next > early);
}

#[test]
fn released_migrations_keep_the_checksums_that_databases_have_recorded() {
    assert_eq!(
        database::tests::checksums(&MIGRATIONS),
        [
            "b3cc899987a87f3036ad9ff7f4d42dbffe609dd716c7087dcd0011e9f4544f56d35d4b697ade4b0fe5e6e76b6b58973f",
            "2846c32f8bba36faace47e0f43ea893982f8493326b750a3944472af9d482b40596a95fe96718eaeedcd28bde9ef5269"
        ]
    );
}

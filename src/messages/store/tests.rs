use std::collections::BTreeSet;

use super::*;
use crate::messages::Messages;

fn user(id: i64) -> Party {
    let name = format!("user{id}").into();
    Party { id, name }
}

async fn messages() -> (tempfile::TempDir, Messages) {
    let directory = tempfile::tempdir().expect("a directory");
    let messages = Messages::open(directory.path()).await.expect("messages");
    (directory, messages)
}

async fn say(messages: &Messages, from: i64, to: To, text: &str) -> u64 {
    let said = messages.say(user(from), to, text.into()).await;
    said.expect("a text").done().await.expect("stored").seq
}

/// What SQLite does for a query, one step a line.
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
    for query in [ROOM_HISTORY, DIRECT_HISTORY, BACKLOG] {
        let plan = plan(&messages, query).await;
        for table in tables {
            let scan = format!("SCAN {table}");
            let scans = |step: &String| step.split(" USING").next() == Some(scan.as_str());
            assert!(!plan.iter().any(scans), "{query}\n{plan:#?}");
        }
        // The backlog sorts places, at most as many as it may return from each of its sources.
        let sorts = plan.iter().any(|step| step.contains("TEMP B-TREE"));
        assert!(!sorts || query == BACKLOG, "{query}\n{plan:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_read_while_messages_are_stored_passes_over_none() {
    let (_directory, messages) = messages().await;
    let rooms: Vec<RoomName> = ["#a", "#b", "#c"]
        .into_iter()
        .map(|room| room.parse().expect("a room"))
        .collect();
    for room in &rooms {
        for id in [1, 2] {
            let joined = messages.join(user(id), room.clone()).await;
            joined.expect("room for two");
        }
    }
    let speaker = tokio::spawn({
        let messages = messages.clone();
        async move {
            let mut said = BTreeSet::new();
            for number in 0..3000 {
                let to = match number % 4 {
                    0 => To::User(user(1)),
                    room => To::Room(rooms[room - 1].clone()),
                };
                said.insert(say(&messages, 2, to, "hello").await);
            }
            said
        }
    });
    let (mut told, mut position) = (BTreeSet::new(), 0);
    loop {
        let is_last = speaker.is_finished();
        let backlog = messages.shared.store.backlog(1, position, 8).await;
        let backlog = backlog.expect("readable");
        told.extend(backlog.events.iter().map(|(seq, _)| *seq));
        position = backlog.position;
        if is_last && backlog.is_complete {
            break;
        }
    }
    let said = speaker.await.expect("no panic");
    let missing: Vec<_> = said.difference(&told).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_backlog_passes_over_own_messages_a_page_at_a_time() {
    let (_directory, messages) = messages().await;
    let room: RoomName = "#ops".parse().expect("a room");
    for id in [1, 2] {
        let joined = messages.join(user(id), room.clone()).await;
        joined.expect("room for two");
    }
    for _ in 0..20 {
        say(&messages, 1, To::Room(room.clone()), "mine").await;
    }
    let last = say(&messages, 2, To::Room(room.clone()), "yours").await;
    let (mut position, mut pages) = (0, 0);
    let told = loop {
        let backlog = messages.shared.store.backlog(1, position, 8).await;
        let backlog = backlog.expect("readable");
        (position, pages) = (backlog.position, pages + 1);
        if !backlog.events.is_empty() {
            break backlog.events[0].0;
        }
        assert!(!backlog.is_complete);
    };
    assert_eq!((told, pages), (last, 3));
}

#[tokio::test]
async fn the_history_of_a_user_with_themselves_has_each_message_once() {
    let (_directory, messages) = messages().await;
    say(&messages, 1, To::User(user(1)), "note").await;
    say(&messages, 1, To::User(user(2)), "to you").await;
    say(&messages, 2, To::User(user(1)), "to me").await;
    let history = async |with| {
        let (user, with) = (user(1), To::User(user(with)));
        let page = messages.history(&user, &with, None, 10, 1 << 16);
        let page = page.await.expect("readable");
        let texts = page.messages.into_iter().map(|message| message.text);
        (texts.collect::<Vec<_>>(), page.more)
    };
    assert_eq!(history(1).await, (vec!["note".to_owned()], false));
    let both = vec!["to you".to_owned(), "to me".to_owned()];
    assert_eq!(history(2).await, (both, false));
}

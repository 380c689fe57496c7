use std::path::Path;
use std::sync::mpsc;

use crate::server::authority::*;
use crate::storage::{SpaceLimits, StorageError, set_home_aside};

fn credential(account: i64, token: Option<i64>) -> Credential {
    Credential { account, token }
}

fn current(id: i64, name: &str) -> CredentialStatus {
    let account = Account {
        id,
        name: name.parse().expect("a name"),
        admin: false,
        limits: SpaceLimits::default(),
        folders: Vec::new(),
    };
    CredentialStatus {
        account: Arc::new(account),
        expires: None,
    }
}

fn let_in(authority: &Authority, store: &Store, reading: u64) {
    let current = current(authority.id, authority.name());
    let open = opener::open_all(store, &current.account).expect("opens");
    let spaces = Spaces::of(&current.account, &open).expect("all of them");
    authority.apply(reading, current, open, &spaces);
}

fn store(data: &Path) -> Store {
    Store::open(data).expect("opens")
}

#[tokio::test]
async fn a_home_that_hangs_holds_up_nobody_else_and_is_had_by_the_next_try() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let changed = |id, name: &str| {
        let authority = Authority::new(&store, credential(id, None), name);
        (Arc::new(authority), current(id, name))
    };
    let (go_on, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let inner = opener::open_in(&store);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let open: opener::Open = Arc::new(move |place, known| {
        counted.fetch_add(1, Ordering::Relaxed);
        if *place == Place::Home(1, "slow".into()) {
            let _ = hangs.lock().map(|hangs| hangs.recv());
        }
        inner(place, known)
    });
    let opener = Arc::new(Opener::default());
    let mut waiting = vec![changed(1, "slow"), changed(2, "quick"), changed(3, "other")];
    opener.want(&open, wanted(&waiting)).expect("threads");
    while waiting.len() > 1 {
        let ended = opener.opened(&mut waiting).await;
        assert!(ended.failed.is_empty());
    }
    assert_eq!(waiting[0].0.id, 1);
    assert_eq!(opener.late(&waiting[0].1.account), "the home of slow");
    opener.want(&open, wanted(&waiting)).expect("threads");
    drop(go_on);
    let ended = opener.opened(&mut waiting).await;
    assert_eq!(ended.done.len(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 3, "each once");
}

#[tokio::test]
async fn what_can_not_be_opened_is_named_and_only_its_user_fails() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let authority = Arc::new(Authority::new(&store, credential(1, None), "alice"));
    let mut waiting = vec![(authority, current(1, "alice"))];
    let open: opener::Open = Arc::new(|_, _| {
        Err(StorageError::Suspended {
            path: crate::storage::VirtualPath::root(),
        })
    });
    let opener = Arc::new(Opener::default());
    opener.want(&open, wanted(&waiting)).expect("a thread");
    let ended = opener.opened(&mut waiting).await;
    let (authority, why) = &ended.failed[0];
    authority.suspend(1, Cause::Unopened(Arc::clone(why)));
    let message = authority.account().expect_err("suspended").to_string();
    assert!(message.contains("the home of alice"), "{message}");
}

#[test]
fn who_is_suspended_keeps_the_open_spaces_until_another_directory_has_their_place() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let alice = Authority::new(&store, credential(1, None), "alice");
    let_in(&alice, &store, 1);
    alice.suspend(2, Cause::Unread);
    assert!(alice.account().is_err());
    let home = Place::Home(1, "alice".into());
    let kept = Arc::clone(&alice.open()[&home]);
    let open = opener::open_in(&store);
    let again = open(&home, Some(Arc::clone(&kept))).expect("opens");
    assert!(Arc::ptr_eq(&kept, &again));
    set_home_aside(data.path(), "alice").expect("set aside");
    let other = open(&home, Some(Arc::clone(&kept))).expect("opens");
    assert!(!Arc::ptr_eq(&kept, &other));
    alice.close();
    assert!(alice.open().is_empty());
}

#[test]
fn a_user_is_connected_as_long_as_one_of_several_credentials_is_in_use() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let authorities = Authorities::default();
    let by_password = authorities.get_or_insert(&store, credential(1, None), "alice");
    let by_token = authorities.get_or_insert(&store, credential(1, Some(7)), "alice");
    let_in(&by_password, &store, 1);
    let_in(&by_token, &store, 1);
    authorities.close(&by_token);
    drop(by_token);
    assert!(authorities.connected("alice").is_some());
    authorities.close(&by_password);
    assert!(authorities.connected("alice").is_none());
}

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use crate::accounts::{Account, Credential, CredentialStatus};
use crate::server::authority::live_authority::Authority;
use crate::server::authority::opener::SpaceOpener;
use crate::server::authority::registry::spaces_to_open;
use crate::server::authority::spaces::{
    AccountSpaces, OpenSpaceFn, SpaceKey, open_all, open_space_fn,
};
use crate::server::authority::suspension::SuspensionCause;
use crate::server::authority::table::AuthorityTable;
use crate::storage::{SpaceLimits, StorageError, Store, set_home_aside};

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

fn put_in_force(authority: &Authority, store: &Store, reading: u64) {
    let current = current(authority.id, authority.name());
    let open = open_all(store, &current.account).expect("opens");
    let spaces = AccountSpaces::from_open(&current.account, &open).expect("all of them");
    authority.apply(reading, current, open, &spaces);
}

fn store(data: &Path) -> Store {
    Store::open(data).expect("opens")
}

#[tokio::test]
async fn a_home_that_hangs_delays_no_other_account_and_is_open_at_the_next_attempt() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let changed = |id, name: &str| {
        let authority = Authority::new(&store, credential(id, None), name);
        (Arc::new(authority), current(id, name))
    };
    let (go_on, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let inner = open_space_fn(&store);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let open: OpenSpaceFn = Arc::new(move |place, known| {
        counted.fetch_add(1, Ordering::Relaxed);
        if *place == SpaceKey::Home(1, "slow".into()) {
            let _ = hangs.lock().recv();
        }
        inner(place, known)
    });
    let opener = Arc::new(SpaceOpener::default());
    let mut waiting = vec![changed(1, "slow"), changed(2, "quick"), changed(3, "other")];
    opener
        .request(&open, spaces_to_open(&waiting))
        .expect("threads");
    while waiting.len() > 1 {
        let ended = opener.wait_finished(&mut waiting).await;
        assert!(ended.failed.is_empty());
    }
    assert_eq!(waiting[0].0.id, 1);
    let unopened = opener.first_unopened(&waiting[0].1.account);
    assert_eq!(unopened, Some(SpaceKey::Home(1, "slow".into())));
    opener
        .request(&open, spaces_to_open(&waiting))
        .expect("threads");
    drop(go_on);
    let ended = opener.wait_finished(&mut waiting).await;
    assert_eq!(ended.opened.len(), 1);
    assert_eq!(count.load(Ordering::Relaxed), 3, "each once");
}

#[tokio::test]
async fn a_home_that_cannot_be_opened_is_named_and_only_its_user_is_suspended() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let authority = Arc::new(Authority::new(&store, credential(1, None), "alice"));
    let mut waiting = vec![(authority, current(1, "alice"))];
    let open: OpenSpaceFn = Arc::new(|_, _| {
        Err(StorageError::Suspended {
            path: crate::storage::VirtualPath::root(),
        })
    });
    let opener = Arc::new(SpaceOpener::default());
    opener
        .request(&open, spaces_to_open(&waiting))
        .expect("a thread");
    let ended = opener.wait_finished(&mut waiting).await;
    let (authority, why) = &ended.failed[0];
    authority.suspend(1, SuspensionCause::SpaceUnavailable(Arc::clone(why)));
    let message = authority.account().expect_err("suspended").to_string();
    assert!(message.contains("the home of alice"), "{message}");
}

#[test]
fn a_suspended_user_keeps_open_spaces_until_another_directory_replaces_them() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let alice = Authority::new(&store, credential(1, None), "alice");
    put_in_force(&alice, &store, 1);
    alice.suspend(2, SuspensionCause::AccountsUnreadable);
    assert!(alice.account().is_err());
    let home = SpaceKey::Home(1, "alice".into());
    let kept = Arc::clone(&alice.open_spaces()[&home]);
    let open = open_space_fn(&store);
    let again = open(&home, Some(Arc::clone(&kept))).expect("opens");
    assert!(Arc::ptr_eq(&kept, &again));
    set_home_aside(data.path(), "alice").expect("set aside");
    let other = open(&home, Some(Arc::clone(&kept))).expect("opens");
    assert!(!Arc::ptr_eq(&kept, &other));
    alice.close();
    assert!(alice.open_spaces().is_empty());
}

#[test]
fn a_user_is_connected_while_one_of_several_credentials_is_in_use() {
    let data = tempfile::tempdir().expect("a directory");
    let store = store(data.path());
    let table = AuthorityTable::default();
    let by_password = table.get_or_insert(&store, credential(1, None), "alice");
    let by_token = table.get_or_insert(&store, credential(1, Some(7)), "alice");
    put_in_force(&by_password, &store, 1);
    put_in_force(&by_token, &store, 1);
    table.close(&by_token);
    drop(by_token);
    assert!(table.connected("alice").is_some());
    table.close(&by_password);
    assert!(table.connected("alice").is_none());
}

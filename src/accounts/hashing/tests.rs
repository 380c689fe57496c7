use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn quick() -> PasswordHashing {
    PasswordHashing::default().with_cost(HashingCost::MIN)
}

#[tokio::test]
async fn the_default_cost_is_what_owasp_recommends() {
    let password = Secret::new("hunter2".into());
    let hash = PasswordHashing::default()
        .hash(&password)
        .await
        .expect("hashed");
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
}

#[tokio::test]
async fn only_the_right_password_is_verified() {
    let hashing = quick();
    let hash = hashing
        .hash(&Secret::new("hunter2".into()))
        .await
        .expect("hashed");
    for (password, right) in [("hunter2", true), ("hunter3", false), ("", false)] {
        let verified = hashing.verify(password, Some(hash.clone())).await;
        assert_eq!(verified.expect("checked"), right, "{password}");
        let verified = hashing.verify(password, None).await;
        assert!(!verified.expect("checked"), "{password}");
    }
}

#[tokio::test]
async fn a_password_that_is_empty_or_over_1024_bytes_is_never_hashed() {
    let hashing = quick();
    hashing.close();
    let long = Secret::new("x".repeat(1025));
    let error = hashing.hash(&long).await.expect_err("too long");
    assert!(matches!(error, AccountsError::PasswordTooLong), "{error}");
    assert!(
        !hashing
            .verify(long.expose(), None)
            .await
            .expect("no hashing")
    );
    let error = hashing.hash(&Secret::new(String::new())).await;
    assert!(matches!(error, Err(AccountsError::EmptyPassword)));
    let longest = Secret::new("x".repeat(1024));
    let error = hashing.hash(&longest).await.expect_err("closed");
    assert!(matches!(error, AccountsError::Hashing { .. }), "{error}");
}

#[tokio::test]
async fn a_damaged_hash_is_an_error_and_no_wrong_password() {
    let error = quick().verify("hunter2", Some("plain".into())).await;
    let message = error.expect_err("damaged").to_string();
    assert!(message.contains("haul.db is damaged"), "{message}");
}

#[tokio::test]
async fn a_hash_of_another_kind_or_version_is_damaged() {
    let hashing = quick();
    let password = Secret::new("hunter2".into());
    let hash = hashing.hash(&password).await.expect("hashed");
    for (right, wrong) in [
        ("$argon2id$", "$argon2i$"),
        ("$argon2id$", "$scrypt$"),
        ("$v=19$", "$v=16$"),
        ("$v=19$", "$"),
    ] {
        let other = hash.replace(right, wrong);
        assert_ne!(other, hash);
        let error = hashing.verify("hunter2", Some(other)).await;
        let message = error.expect_err("damaged").to_string();
        assert!(message.contains("haul.db is damaged"), "{message}");
    }
}

#[tokio::test]
async fn nothing_of_a_password_stays_in_the_memory_that_is_kept() {
    let hashing = quick();
    hashing.verify("hunter2", None).await.expect("checked");
    let kept = hashing.workspaces.lock();
    assert_eq!(kept.len(), 1);
    let words = kept[0].iter().flat_map(AsRef::as_ref);
    assert!(words.clone().count() > 0);
    assert!(words.into_iter().all(|word| *word == 0));
}

#[tokio::test]
async fn at_most_one_password_per_slot_is_hashed_at_once() {
    let hashing = quick().with_slots(2);
    let running = Arc::new(AtomicUsize::new(0));
    // Both slots must be taken at once for either to get past the barrier.
    let both = Arc::new(std::sync::Barrier::new(2));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (hashing, running) = (hashing.clone(), Arc::clone(&running));
            let both = Arc::clone(&both);
            tokio::spawn(async move {
                let work = hashing.run_in_slot(move |_| {
                    let others = running.fetch_add(1, Ordering::SeqCst);
                    both.wait();
                    running.fetch_sub(1, Ordering::SeqCst);
                    both.wait();
                    others
                });
                work.await.expect("worked")
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.expect("no panic") < 2);
    }
}

#[test]
fn a_password_is_checked_while_every_blocking_thread_of_the_runtime_is_taken() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let stuck = runtime.spawn_blocking(move || ended.recv());
    let verified = runtime.block_on(quick().verify("hunter2", None));
    assert!(!verified.expect("checked"));
    assert!(!stuck.is_finished());
    drop(end);
}

#[tokio::test]
async fn a_slot_is_held_until_the_hashing_ends_even_if_nobody_waits() {
    let hashing = quick().with_slots(1);
    let (begun, has_begun) = oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let task = tokio::spawn({
        let hashing = hashing.clone();
        async move {
            let work = move |_| {
                begun.send(()).expect("the test waits");
                ended.recv().expect("the test ends it");
            };
            hashing.run_in_slot(work).await
        }
    });
    has_begun.await.expect("begun");
    task.abort();
    assert!(task.await.expect_err("aborted").is_cancelled());
    assert_eq!(hashing.slots.available_permits(), 0);
    end.send(()).expect("it still runs");
    assert!(
        !hashing
            .verify("x", None)
            .await
            .expect("the slot is free again")
    );
}

use super::*;
use crate::accounts::UserChange;
use crate::accounts::tests::{accounts, add, reopen, secret, user};

async fn refusal(accounts: &Accounts, user: &str, password: &str) -> String {
    let error = accounts.log_in_with_password(user, password).await;
    error.expect_err("refused").to_string()
}

#[tokio::test]
async fn the_right_password_logs_in_and_every_other_fails_alike() {
    let (_directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let account = accounts
        .log_in_with_password("alice", "hunter2")
        .await
        .expect("right");
    assert_eq!(account.name, user("alice"));
    let wrong = refusal(&accounts, "alice", "hunter3").await;
    for name in ["bob", "Alice", "", "../alice", "alice\0", "alice' OR ''='"] {
        assert_eq!(refusal(&accounts, name, "hunter2").await, wrong, "{name:?}");
    }
    assert_eq!(refusal(&accounts, "alice", "").await, wrong);
}

#[tokio::test]
async fn an_unknown_user_costs_a_hash_like_a_wrong_password() {
    let (_directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    accounts.hashing.close();
    for (name, password) in [
        ("alice", "hunter3"),
        ("bob", "hunter3"),
        ("../x", "hunter3"),
    ] {
        let message = refusal(&accounts, name, password).await;
        assert!(
            message.starts_with("cannot check passwords"),
            "{name}: {message}"
        );
    }
}

#[tokio::test]
async fn a_password_over_1024_bytes_is_refused_before_any_hashing() {
    let (_directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let wrong = refusal(&accounts, "alice", "hunter3").await;
    accounts.hashing.close();
    let long = "x".repeat(1025);
    for name in ["alice", "bob"] {
        assert_eq!(refusal(&accounts, name, &long).await, wrong);
    }
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one_and_tokens_stay() {
    let (_directory, accounts) = accounts().await;
    add(&accounts, "alice").await;
    let token = accounts
        .add_token(&user("alice"), "", None)
        .await
        .expect("made");
    accounts
        .set_password(&user("alice"), &secret("other"))
        .await
        .expect("set");
    refusal(&accounts, "alice", "hunter2").await;
    accounts
        .log_in_with_password("alice", "other")
        .await
        .expect("right");
    accounts
        .log_in_with_token(token.expose())
        .await
        .expect("stays");
}

#[tokio::test]
async fn a_removed_or_disabled_user_cannot_log_in() {
    let (directory, accounts) = accounts().await;
    let alice = user("alice");
    add(&accounts, "alice").await;
    let token = accounts.add_token(&alice, "", None).await.expect("made");
    let wrong = refusal(&accounts, "alice", "hunter3").await;
    let disable = |disabled| UserChange {
        disabled: Some(disabled),
        ..UserChange::default()
    };
    accounts.set_user(&alice, disable(true)).await.expect("set");
    assert_eq!(refusal(&accounts, "alice", "hunter2").await, wrong);
    assert!(accounts.log_in_with_token(token.expose()).await.is_err());
    assert_eq!(accounts.account(&alice).await.expect("readable"), None);

    accounts
        .set_user(&alice, disable(false))
        .await
        .expect("set");
    accounts
        .log_in_with_token(token.expose())
        .await
        .expect("enabled again");
    let other = reopen(&directory).await;
    other.remove_user(&alice).await.expect("removed");
    assert_eq!(refusal(&accounts, "alice", "hunter2").await, wrong);
    add(&accounts, "alice").await;
    assert!(accounts.log_in_with_token(token.expose()).await.is_err());
}

#[tokio::test]
async fn a_token_logs_in_until_it_expires_or_is_removed() {
    let (_directory, accounts) = accounts().await;
    let alice = user("alice");
    add(&accounts, "alice").await;
    let expires = Timestamp::from_second(2_000_000_000).expect("a time");
    let token = accounts
        .add_token(&alice, "", Some(expires))
        .await
        .expect("made");
    let second = jiff::SignedDuration::from_secs(1);
    let account = accounts
        .log_in_with_token_at(token.expose(), expires - second)
        .await;
    assert_eq!(account.expect("not yet").0.name, alice);
    let error = accounts.log_in_with_token_at(token.expose(), expires).await;
    assert!(matches!(error, Err(AccountsError::LoginFailed)));

    let token = accounts.add_token(&alice, "", None).await.expect("made");
    accounts
        .log_in_with_token(token.expose())
        .await
        .expect("good");
    let upper = token.expose().to_uppercase();
    for wrong in ["", "haul_", &token.expose()[1..], &upper] {
        assert!(accounts.log_in_with_token(wrong).await.is_err(), "{wrong}");
    }
    let tokens = accounts.tokens(&alice).await.expect("readable");
    accounts
        .remove_token(&alice, tokens[1].id)
        .await
        .expect("removed");
    assert!(accounts.log_in_with_token(token.expose()).await.is_err());
}

#[tokio::test]
async fn a_credential_is_good_as_long_as_its_account_and_its_token_are() {
    let (_directory, accounts) = accounts().await;
    let alice = user("alice");
    add(&accounts, "alice").await;
    let expires = Timestamp::from_second(2_000_000_000).expect("a time");
    for expires in [None, Some(expires)] {
        accounts.add_token(&alice, "", expires).await.expect("made");
    }
    let account = accounts
        .account(&alice)
        .await
        .expect("readable")
        .expect("there");
    let tokens = accounts.tokens(&alice).await.expect("readable");
    let of = |token| Credential {
        account: account.id,
        token,
    };
    let credentials = [of(None), of(Some(tokens[0].id)), of(Some(tokens[1].id))];
    let good_at = async |now| {
        let current = accounts
            .credential_statuses_at(&credentials, now)
            .await
            .expect("readable");
        current.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    let second = jiff::SignedDuration::from_secs(1);
    assert_eq!(good_at(expires - second).await, [true, true, true]);
    assert_eq!(good_at(expires).await, [true, true, false]);
    let current = accounts
        .credential_statuses(&credentials)
        .await
        .expect("readable");
    let last = current[2].as_ref().expect("good");
    assert_eq!((&*last.account, last.expires), (&account, Some(expires)));
    accounts
        .remove_token(&alice, tokens[0].id)
        .await
        .expect("removed");
    assert_eq!(good_at(expires - second).await, [true, false, true]);
    accounts.remove_user(&alice).await.expect("removed");
    add(&accounts, "alice").await;
    assert_eq!(good_at(expires - second).await, [false, false, false]);
}

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cli::saved_login::DeviceToken;
use crate::protocol::Secret;

fn url(text: &str) -> ServerUrl {
    text.parse().expect("an address")
}

fn name(text: &str) -> ProfileName {
    text.parse().expect("a name")
}

fn device(number: u64) -> SavedLogin {
    SavedLogin::Device(DeviceToken {
        token: Secret::new(format!("haul_{number}")),
        number,
    })
}

fn new(server: &str, login: SavedLogin) -> NewProfile {
    NewProfile {
        name: None,
        url: url(server),
        login: Some(login),
        make_current: false,
    }
}

#[test]
fn a_saved_profile_is_read_again_and_only_its_user_may_read_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("haul/servers.toml");
    let password = SavedLogin::Password(Secret::new("one \"two\"\n".into()));
    for (server, login) in [
        ("haul+plain://alice@host:9000", password),
        ("haul://bob@other:9000", device(7)),
    ] {
        change_in(&path, |profiles| profiles.insert(new(server, login))).expect("saved");
    }
    let mode = fs::metadata(&path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let profiles: ProfileFile = client_file::read_toml(&path).expect("sound");
    let (current, alice) = profiles.current().expect("a current profile");
    assert_eq!(*current, name("alice@host"));
    assert!(matches!(
        &alice.login,
        Some(SavedLogin::Password(password)) if password.expose() == "one \"two\"\n"
    ));
    let login = profiles.login(&url("haul://bob@other")).expect("a login");
    assert!(matches!(login, SavedLogin::Device(device) if device.number == 7));
}

#[test]
fn a_second_profile_does_not_become_current_unless_it_is_asked_for() {
    let mut profiles = ProfileFile::default();
    let alice = profiles
        .insert(new("haul://alice@host", device(1)))
        .expect("saved");
    assert_eq!(alice.current, name("alice@host"));
    let bob = profiles
        .insert(new("haul://bob@host", device(2)))
        .expect("saved");
    assert_eq!(
        (bob.name, bob.current),
        (name("bob@host"), name("alice@host"))
    );
    let carol = NewProfile {
        make_current: true,
        ..new("haul://carol@host", device(3))
    };
    assert_eq!(
        profiles.insert(carol).expect("saved").current,
        name("carol@host")
    );
}

#[test]
fn a_profile_for_the_same_address_is_replaced_with_its_token_named() {
    let mut profiles = ProfileFile::default();
    let work = NewProfile {
        name: Some(name("work")),
        ..new("haul://alice@host", device(1))
    };
    profiles.insert(work).expect("saved");
    let again = profiles.insert(new("haul://alice@host:9000", device(2)));
    let again = again.expect("saved");
    assert_eq!((again.name, again.replaced_token), (name("work"), Some(1)));
    assert_eq!(profiles.profiles().count(), 1);
}

#[test]
fn a_name_is_not_taken_from_another_address() {
    let mut profiles = ProfileFile::default();
    let work = |server| NewProfile {
        name: Some(name("work")),
        ..new(server, device(1))
    };
    profiles.insert(work("haul://alice@host")).expect("saved");
    let error = profiles.insert(work("haul://bob@host")).expect_err("taken");
    assert!(
        error.to_string().contains("haul://alice@host:9000"),
        "{error}"
    );
    // The same host without encryption is another address.
    let plain = profiles.insert(new("haul+plain://alice@host", device(2)));
    assert_eq!(plain.expect("saved").name, name("alice@host"));
    let tls = profiles.insert(new("haul://alice@host:9000", device(3)));
    assert_eq!(tls.expect("saved").name, name("work"));
}

#[test]
fn two_addresses_with_one_derived_name_are_numbered() {
    let mut profiles = ProfileFile::default();
    profiles
        .insert(new("haul://alice@host", device(1)))
        .expect("saved");
    let plain = profiles.insert(new("haul+plain://alice@host", device(2)));
    assert_eq!(plain.expect("saved").name, name("alice@host-2"));
}

#[test]
fn a_file_of_an_earlier_version_is_read_and_rewritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("servers.toml");
    let old = "server = \"haul://bob@other:9000\"\n\n[logins]\n\
               \"haul+plain://alice@host:19000\" = { password = \"p\" }\n\
               \"haul://bob@other:9000\" = { token = \"t\" }\n\
               [logins.\"haul://carol@other:9000\".certificate]\n\
               certificate = \"/c.pem\"\nkey = \"/c.pem\"\n";
    fs::write(&path, old).expect("written");
    let profiles: ProfileFile = client_file::read_toml(&path).expect("sound");
    let names: Vec<_> = profiles
        .profiles()
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(names, ["alice@host:19000", "bob@other", "carol@other"]);
    assert_eq!(*profiles.current().expect("one").0, name("bob@other"));

    change_in(&path, |profiles| {
        profiles.insert(new("haul://dave@host", device(1)))
    })
    .expect("saved");
    let text = fs::read_to_string(&path).expect("there");
    assert!(!text.contains("[logins"), "{text}");
    let profiles: ProfileFile = client_file::read_toml(&path).expect("sound");
    assert_eq!(profiles.profiles().count(), 4);
    assert_eq!(*profiles.current().expect("one").0, name("bob@other"));
}

#[test]
fn the_server_of_an_earlier_version_that_asks_for_the_password_stays_current() {
    let old = "server = \"haul://bob@other:9000\"\n";
    let profiles: ProfileFile = toml::from_str(old).expect("sound");
    let (current, profile) = profiles.current().expect("one");
    assert_eq!(*current, name("bob@other"));
    assert!(profile.login.is_none());
}

#[test]
fn the_user_of_a_known_server_is_filled_in() {
    let mut profiles = ProfileFile::default();
    for (server, number) in [("haul+plain://alice@host", 1), ("haul://bob@other", 2)] {
        profiles.insert(new(server, device(number))).expect("saved");
    }
    let user = |text| profiles.with_user(url(text)).user;
    assert_eq!(user("haul+plain://host").as_deref(), Some("alice"));
    assert_eq!(user("haul+plain://carol@host").as_deref(), Some("carol"));
    assert_eq!(user("haul://other").as_deref(), Some("bob"));
    assert_eq!(user("haul://host"), None);
}

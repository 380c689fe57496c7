//! The user or room of the last chat with each server, for a chat without a name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::cli::client_file::{read_toml, update_toml};
use crate::cli::history::last;
use crate::cli::line_editor::state_file;
use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::client::ServerUrl;

/// The file in the state directory.
const FILE: &str = "chats.toml";

#[derive(Debug, Default, Serialize, Deserialize)]
struct LastChats {
    /// Users and rooms by the address of the server, which includes the own user.
    #[serde(default)]
    last: BTreeMap<String, String>,
}

/// The user or room to go on with: none if nothing is saved, or if the user has gone or the room was
/// left since.
pub(super) async fn resume(remote: &RemoteSession) -> Option<String> {
    let server = remote.server.to_string();
    let loading = spawn_blocking(move || load(&state_file(FILE)?, &server));
    let with = loading.await.ok()??;
    last(&remote.client, &with, None, NonZeroU32::MIN)
        .await
        .ok()?;
    let name = safe(&with);
    remote.output.note(&format!(
        "going on with {name}; `haul chat NAME` chats with another user or room"
    ));
    Some(with)
}

/// Saves whom a chat is with. A chat works without that, so failures are not reported.
pub(super) async fn save(server: &ServerUrl, with: &str) {
    let (server, with) = (server.to_string(), with.to_owned());
    let saving = spawn_blocking(move || store(&state_file(FILE)?, server, with));
    let _ = saving.await;
}

fn load(path: &Path, server: &str) -> Option<String> {
    let chats: LastChats = read_toml(path).ok()?;
    chats.last.get(server).cloned()
}

fn store(path: &Path, server: String, with: String) -> Option<()> {
    update_toml(path, |chats: &mut LastChats| {
        chats.last.insert(server, with);
        Ok(())
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_its_last_chat() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("haul").join(FILE);
        assert_eq!(load(&path, "haul://alice@h:9000"), None);
        for (server, with) in [("a", "bob"), ("b", "carol"), ("a", "#ops")] {
            store(&path, server.into(), with.into()).expect("saved");
        }
        assert_eq!(load(&path, "a").as_deref(), Some("#ops"));
        assert_eq!(load(&path, "b").as_deref(), Some("carol"));
    }
}

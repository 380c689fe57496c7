//! What `haul connect` remembers: the last server and, per server and user, a password or token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::cli::client_file;
use crate::cli::config_directory::directory;
use crate::cli::own_certificate::OwnCertificate;
use crate::client::ServerUrl;
use crate::protocol::Secret;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remembered {
    /// The server and user of commands that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// How to log in, by address with user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    logins: BTreeMap<String, SavedLogin>,
}

/// A way to log in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SavedLogin {
    Password(Secret),
    Token(Secret),
    Certificate(OwnCertificate),
}

impl Remembered {
    /// Reads the file; without one nothing is remembered.
    pub(crate) fn load() -> anyhow::Result<Self> {
        Self::load_from(&file()?)
    }

    fn load_from(path: &Path) -> anyhow::Result<Self> {
        client_file::read_toml(path)
    }

    /// The server of commands that name none.
    pub(crate) fn server(&self) -> Option<ServerUrl> {
        self.server.as_ref()?.parse().ok()
    }

    /// `url` with the user who logged in there last, if it names none and one is known.
    pub(crate) fn with_user(&self, url: ServerUrl) -> ServerUrl {
        if url.user.is_some() {
            return url;
        }
        let known = self.logins.keys().filter_map(|key| key.parse().ok());
        self.server()
            .into_iter()
            .chain(known)
            .find(|known: &ServerUrl| {
                (&known.host, known.port, known.tls) == (&url.host, url.port, url.tls)
            })
            .unwrap_or(url)
    }

    /// How `url`, which names a user, was logged in to.
    pub(crate) fn login(&self, url: &ServerUrl) -> Option<&SavedLogin> {
        self.logins.get(&url.to_string())
    }

    /// Remembers a server with its user, and how to log in there unless that is to be asked.
    /// Returns the path of the file.
    pub(crate) async fn remember(
        url: &ServerUrl,
        login: Option<SavedLogin>,
    ) -> anyhow::Result<PathBuf> {
        let (path, url) = (file()?, url.to_string());
        spawn_blocking(move || {
            Self::remember_in(&path, url, login)?;
            Ok(path)
        })
        .await?
    }

    fn remember_in(path: &Path, url: String, login: Option<SavedLogin>) -> anyhow::Result<()> {
        client_file::update_toml(path, |remembered: &mut Self| {
            match login {
                Some(login) => remembered.logins.insert(url.clone(), login),
                None => remembered.logins.remove(&url),
            };
            remembered.server = Some(url);
        })
    }
}

fn file() -> anyhow::Result<PathBuf> {
    Ok(directory()?.join("servers.toml"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::trust::TrustOptions;

    fn url(text: &str) -> ServerUrl {
        text.parse().expect("an address")
    }

    fn sample() -> Remembered {
        let password = SavedLogin::Password(Secret::new("one \"two\"\n".into()));
        let options = TrustOptions {
            cert: Some("/carol.pem".into()),
            ..TrustOptions::default()
        };
        let certificate = options.own_certificate().expect("absolute").expect("one");
        Remembered {
            server: Some("haul+plain://alice@host:9000".into()),
            logins: [
                ("haul+plain://alice@host:9000".into(), password),
                (
                    "haul://bob@other:9000".into(),
                    SavedLogin::Token(Secret::new("t".into())),
                ),
                (
                    "haul://carol@other:9000".into(),
                    SavedLogin::Certificate(certificate),
                ),
            ]
            .into(),
        }
    }

    #[test]
    fn what_is_saved_is_found_again_and_for_nobody_else_to_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("haul/servers.toml");
        let Remembered { server, logins } = sample();
        for (url, login) in logins {
            Remembered::remember_in(&path, url, Some(login)).expect("saved");
        }
        let last = server.expect("one");
        let login = SavedLogin::Password(Secret::new("one \"two\"\n".into()));
        Remembered::remember_in(&path, last, Some(login)).expect("saved");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = Remembered::load_from(&path).expect("sound");
        let server = found.server().expect("a server");
        let by_certificate = found.login(&url("haul://carol@other:9000"));
        assert!(matches!(by_certificate, Some(SavedLogin::Certificate(_))));
        assert!(matches!(
            found.login(&server),
            Some(SavedLogin::Password(password)) if password.expose() == "one \"two\"\n"
        ));
    }

    #[test]
    fn the_user_of_a_known_server_is_filled_in() {
        let remembered = sample();
        let user = |text| remembered.with_user(url(text)).user;
        assert_eq!(user("haul+plain://host").as_deref(), Some("alice"));
        assert_eq!(user("haul+plain://carol@host").as_deref(), Some("carol"));
        assert_eq!(user("haul://other").as_deref(), Some("bob"));
        assert_eq!(user("haul://host"), None);
    }
}

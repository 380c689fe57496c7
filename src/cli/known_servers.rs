//! The servers that are trusted by their certificates: a file with their fingerprints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::cli::client_file;
use crate::cli::config_directory::directory;
use crate::client::{ServerUrl, Trust};
use crate::tls::Fingerprint;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownServers {
    /// Fingerprints, by host and port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    servers: BTreeMap<String, Fingerprint>,
}

impl KnownServers {
    /// Trusts the server at `url` if it is known.
    pub(crate) fn trust(trust: Trust, url: &ServerUrl) -> anyhow::Result<Trust> {
        let address = url.address();
        Ok(match Self::load_from(&file()?)?.servers.get(&address) {
            Some(fingerprint) => trust.with_known(address, *fingerprint),
            None => trust,
        })
    }

    /// Remembers the server at `address` by its certificate, in place of what was known of it.
    pub(crate) async fn remember(address: &str, fingerprint: Fingerprint) -> anyhow::Result<()> {
        let (path, address) = (file()?, address.to_owned());
        spawn_blocking(move || Self::remember_in(&path, address, fingerprint)).await?
    }

    fn remember_in(path: &Path, address: String, fingerprint: Fingerprint) -> anyhow::Result<()> {
        // Nothing has to be written then, which may be impossible.
        if Self::load_from(path)?.servers.get(&address) == Some(&fingerprint) {
            return Ok(());
        }
        client_file::update_toml(path, |known: &mut Self| {
            known.servers.insert(address, fingerprint);
            Ok(())
        })
    }

    fn load_from(path: &Path) -> anyhow::Result<Self> {
        client_file::read_toml(path)
    }
}

fn file() -> anyhow::Result<PathBuf> {
    Ok(directory()?.join("known_servers.toml"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_server_is_known_by_the_fingerprint_that_was_remembered_last() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("haul/known_servers.toml");
        let (old, new) = (
            Fingerprint::of_certificate(b"old"),
            Fingerprint::of_certificate(b"new"),
        );
        for (address, fingerprint) in [("a:1", old), ("[::1]:2", old), ("a:1", new)] {
            KnownServers::remember_in(&path, address.into(), fingerprint).expect("saved");
        }
        let known = KnownServers::load_from(&path).expect("sound").servers;
        let expected = [("[::1]:2".to_owned(), old), ("a:1".to_owned(), new)];
        assert_eq!(known, BTreeMap::from(expected));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_not_taken_for_an_empty_one() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("known_servers.toml");
        fs::write(&path, "[servers]\n\"a:1\" = \"sha256:ab\"\n").expect("written");
        let error = KnownServers::load_from(&path).expect_err("damaged");
        let error = format!("{error:#}");
        assert!(error.contains("known_servers.toml is damaged"), "{error}");
    }
}

//! The file of profiles: servers with a user and a way to log in, each under a name, one of them
//! current.
//!
//! [`ProfileFile::load`] reads it. Every change is one of the functions below, which read, change and
//! replace the file under a lock. A file of an earlier version, with `server` and `logins`, is read
//! as profiles and replaced by the next change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::cli::client_file;
use crate::cli::config_directory::directory;
use crate::cli::profile_name::ProfileName;
use crate::cli::saved_login::SavedLogin;
use crate::client::ServerUrl;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(from = "StoredProfiles")]
pub(crate) struct ProfileFile {
    /// The profile of commands that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<ProfileName>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    profiles: BTreeMap<ProfileName, Profile>,
}

/// A server with a user, and how to log in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The address, which names the user.
    server: String,
    /// The way to log in; without one, commands ask for the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<SavedLogin>,
}

/// The file of this version or an earlier one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoredProfiles {
    current: Option<ProfileName>,
    profiles: BTreeMap<ProfileName, Profile>,
    /// Of an earlier version: the address of commands that name none.
    server: Option<String>,
    /// Of an earlier version: the ways to log in, by address.
    logins: BTreeMap<String, SavedLogin>,
}

/// The effect of [`ProfileFile::save`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SavedProfile {
    pub(crate) name: ProfileName,
    /// The current profile now.
    pub(crate) current: ProfileName,
    /// The number of the device token that the profile had before.
    pub(crate) replaced_token: Option<u64>,
}

/// A profile to save.
#[derive(Debug)]
pub(crate) struct NewProfile {
    /// The name that the user chose. Without one, that of a profile for the same address, or a name
    /// made of the address.
    pub(crate) name: Option<ProfileName>,
    pub(crate) url: ServerUrl,
    pub(crate) login: Option<SavedLogin>,
    /// Whether it becomes the current profile although there is one.
    pub(crate) make_current: bool,
}

/// A change is not possible.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("there is no profile {0}; `haul profiles` lists them")]
    Unknown(ProfileName),
    #[error(
        "profile {name} is for {server}; choose another name, or remove it with `haul logout {name}`"
    )]
    NameTaken { name: ProfileName, server: String },
}

impl Profile {
    fn new(url: &ServerUrl, login: Option<SavedLogin>) -> Self {
        Self {
            server: url.to_string(),
            login,
        }
    }

    /// The address, with the user.
    pub(crate) fn url(&self) -> anyhow::Result<ServerUrl> {
        Ok(self.server.parse()?)
    }

    /// The address as text.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }
}

impl ProfileFile {
    /// Reads the file; without one there are no profiles.
    pub(crate) fn load() -> anyhow::Result<Self> {
        client_file::read_toml(&file()?)
    }

    /// All profiles, by name.
    pub(crate) fn profiles(&self) -> impl Iterator<Item = (&ProfileName, &Profile)> {
        self.profiles.iter()
    }

    /// The profile of commands that name none.
    pub(crate) fn current(&self) -> Option<(&ProfileName, &Profile)> {
        self.profiles.get_key_value(self.current.as_ref()?)
    }

    /// The profile of this name.
    pub(crate) fn get(&self, name: &ProfileName) -> Result<&Profile, ProfileError> {
        let found = self.profiles.get(name);
        found.ok_or_else(|| ProfileError::Unknown(name.clone()))
    }

    /// `url` with the user of a profile for the same server, preferably the current one, if it names
    /// none.
    pub(crate) fn with_user(&self, url: ServerUrl) -> ServerUrl {
        if url.user.is_some() {
            return url;
        }
        let current = self.current().map(|(_, profile)| profile);
        let known = current.into_iter().chain(self.profiles.values());
        known
            .filter_map(|profile| profile.url().ok())
            .find(|known| (&known.host, known.port, known.tls) == (&url.host, url.port, url.tls))
            .unwrap_or(url)
    }

    /// How to log in to `url`, which names a user.
    pub(crate) fn login(&self, url: &ServerUrl) -> Option<&SavedLogin> {
        let server = url.to_string();
        let mut profiles = self.profiles.values();
        profiles
            .find(|profile| profile.server == server)?
            .login
            .as_ref()
    }

    /// Adds a profile, or replaces the way to log in of the profile for the same address. The first
    /// profile becomes the current one.
    pub(crate) async fn save(new: NewProfile) -> anyhow::Result<SavedProfile> {
        change(move |profiles| profiles.insert(new)).await
    }

    /// Makes the profile `name` the current one, and returns it.
    pub(crate) async fn select(name: ProfileName) -> anyhow::Result<Profile> {
        change(move |profiles| {
            let profile = profiles.get(&name)?.clone();
            profiles.current = Some(name);
            Ok(profile)
        })
        .await
    }

    /// Removes the profile `name`. Afterwards no profile is current if it was.
    pub(crate) async fn remove(name: ProfileName) -> anyhow::Result<()> {
        change(move |profiles| {
            let removed = profiles.profiles.remove(&name);
            if profiles.current.as_ref() == Some(&name) {
                profiles.current = None;
            }
            removed.map(drop).ok_or(ProfileError::Unknown(name))
        })
        .await
    }

    fn insert(&mut self, new: NewProfile) -> Result<SavedProfile, ProfileError> {
        let server = new.url.to_string();
        let name = match new.name {
            Some(name) => name,
            None => self.name_for(&new.url, &server),
        };
        let replaced = match self.profiles.get(&name) {
            Some(known) if known.server != server => {
                let server = known.server.clone();
                return Err(ProfileError::NameTaken { name, server });
            }
            known => known.and_then(|known| known.login.clone()),
        };
        let profile = Profile::new(&new.url, new.login);
        self.profiles.insert(name.clone(), profile);
        let current = match self.current() {
            Some((current, _)) if !new.make_current => current.clone(),
            _ => name.clone(),
        };
        self.current = Some(current.clone());
        let replaced_token = match replaced {
            Some(SavedLogin::Device(device)) => Some(device.number),
            _ => None,
        };
        Ok(SavedProfile {
            name,
            current,
            replaced_token,
        })
    }

    /// The name of the profile for this address, or a free one.
    fn name_for(&self, url: &ServerUrl, server: &str) -> ProfileName {
        let mut profiles = self.profiles.iter();
        if let Some((name, _)) = profiles.find(|(_, profile)| profile.server == server) {
            return name.clone();
        }
        let name = ProfileName::for_server(url);
        let numbered = (2..).map(|number| name.with_number(number));
        let mut candidates = std::iter::once(name.clone()).chain(numbered);
        let free = candidates.find(|name| !self.profiles.contains_key(name));
        free.unwrap_or(name)
    }
}

impl From<StoredProfiles> for ProfileFile {
    fn from(stored: StoredProfiles) -> Self {
        let mut profiles = Self {
            current: stored.current,
            profiles: stored.profiles,
        };
        let mut add = |server: &str, login: Option<SavedLogin>| {
            let Ok(url) = server.parse::<ServerUrl>() else {
                return;
            };
            let name = profiles.name_for(&url, &url.to_string());
            let profile = profiles.profiles.entry(name.clone());
            profile.or_insert_with(|| Profile::new(&url, login));
            if stored.server.as_deref() == Some(server) {
                profiles.current = Some(name);
            }
        };
        for (server, login) in stored.logins {
            add(&server, Some(login));
        }
        if let Some(server) = &stored.server {
            add(server, None);
        }
        profiles
    }
}

/// Changes the file under its lock, on a thread that may block.
async fn change<T: Send + 'static>(
    change: impl FnOnce(&mut ProfileFile) -> Result<T, ProfileError> + Send + 'static,
) -> anyhow::Result<T> {
    let path = file()?;
    spawn_blocking(move || change_in(&path, change)).await?
}

fn change_in<T>(
    path: &Path,
    change: impl FnOnce(&mut ProfileFile) -> Result<T, ProfileError>,
) -> anyhow::Result<T> {
    client_file::update_toml(path, |profiles: &mut ProfileFile| Ok(change(profiles)?))
}

/// The path of the file.
pub(crate) fn file() -> anyhow::Result<PathBuf> {
    Ok(directory()?.join("servers.toml"))
}

#[cfg(test)]
mod tests;

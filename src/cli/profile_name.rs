//! The names of profiles.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::client::ServerUrl;
use crate::protocol::DEFAULT_PORT;

/// The most characters of a name. The name of a user and that of a host fit.
const MAX_PROFILE_NAME_CHARS: usize = 320;

/// The name of a profile, such as `work` or `alice@files.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct ProfileName(String);

/// The text is not a valid name of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a profile has letters, digits, \".\", \"_\", \"-\", \"@\", \":\" or brackets, \
     and begins with a letter, a digit or a bracket"
)]
pub(crate) struct InvalidProfileName;

impl ProfileName {
    /// The name of the profile for a server, unless the user chooses one: the user and the host, with
    /// the port if it is not the default one.
    pub(crate) fn for_server(url: &ServerUrl) -> Self {
        let address = url.address();
        let port = format!(":{DEFAULT_PORT}");
        let host = address.strip_suffix(&port).unwrap_or(&address);
        match &url.user {
            Some(user) => Self(format!("{user}@{host}")),
            None => Self(host.to_owned()),
        }
    }

    /// This name with a number, to tell it from another one.
    pub(crate) fn with_number(&self, number: u32) -> Self {
        Self(format!("{}-{number}", self.0))
    }
}

impl FromStr for ProfileName {
    type Err = InvalidProfileName;

    fn from_str(text: &str) -> Result<Self, InvalidProfileName> {
        let starts_well = text.starts_with(|c: char| c.is_alphanumeric() || c == '[');
        let is_allowed =
            |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':' | '[' | ']');
        let is_short = text.chars().count() <= MAX_PROFILE_NAME_CHARS;
        if starts_well && is_short && text.chars().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidProfileName)
        }
    }
}

impl TryFrom<String> for ProfileName {
    type Error = InvalidProfileName;

    fn try_from(text: String) -> Result<Self, InvalidProfileName> {
        text.parse()
    }
}

impl From<ProfileName> for String {
    fn from(name: ProfileName) -> Self {
        name.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_after_its_user_and_host_unless_the_port_is_unusual() {
        for (url, name) in [
            ("haul://alice@host", "alice@host"),
            ("haul://alice@host:9000", "alice@host"),
            ("haul+plain://alice@host:19000", "alice@host:19000"),
            ("haul://alice@[::1]:9000", "alice@[::1]"),
            ("haul://host", "host"),
        ] {
            let url = url.parse().expect("an address");
            let derived = ProfileName::for_server(&url);
            assert_eq!(derived.to_string(), name);
            assert_eq!(name.parse(), Ok(derived), "a user can type it");
        }
    }

    #[test]
    fn a_name_that_a_shell_or_a_terminal_could_mistake_is_refused() {
        for text in ["", "-x", "a b", "a\nb", "a/b", "\u{202e}x", "$HOME"] {
            assert_eq!(
                text.parse::<ProfileName>(),
                Err(InvalidProfileName),
                "{text:?}"
            );
        }
    }
}

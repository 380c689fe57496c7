//! The names of users and folders. They become directory names, so they cannot contain separators.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a name.
const MAX_NAME_BYTES: usize = 32;

/// The text is not a valid name of a user or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to 32 lower-case letters, digits, \".\", \"_\" or \"-\", \
     and begins with a letter or a digit"
)]
pub struct InvalidName;

fn check(text: &str) -> Result<(), InvalidName> {
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    if starts_well && text.len() <= MAX_NAME_BYTES && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidName)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                check(&text).map(|()| Self(text))
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of a user: 1 to 32 of `a-z`, `0-9`, `.`, `_` and `-`, a letter or digit first.
    UserName
}

name! {
    /// The name of a shared folder, of the same form as a [`UserName`].
    FolderName
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_could_escape_or_confuse_is_refused() {
        let long = "a".repeat(33);
        for text in [
            "",
            ".",
            "..",
            "../x",
            "/x",
            "x/y",
            "A",
            "aB",
            "-x",
            "_x",
            ".x",
            "x\0",
            "x\n",
            "ä",
            "x ",
            "x\u{202e}",
            &long,
        ] {
            assert_eq!(text.parse::<UserName>(), Err(InvalidName), "{text:?}");
            assert_eq!(
                FolderName::try_from(text.to_owned()),
                Err(InvalidName),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_plain_name_is_taken_as_it_is() {
        let long = "a".repeat(32);
        for text in ["a", "0", "alice", "bob.b", "a..b", "2nd_team-x", &long] {
            let name: UserName = text.parse().expect("a name");
            assert_eq!(name.as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn every_name_is_a_single_path_component(text in "[./a-zA-Z0-9_~-]{0,40}") {
            if let Ok(name) = text.parse::<UserName>() {
                let path = std::path::Path::new("/homes").join(name.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/homes")));
                prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(&*text));
            }
        }
    }
}

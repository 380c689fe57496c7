//! The names of rooms.

use std::fmt;
use std::str::FromStr;

/// The most bytes of a name without its `#`.
const MAX_ROOM_NAME_BYTES: usize = 32;

/// The name of a room: `#` and 1 to 32 of `a-z`, `0-9`, `.`, `_` and `-`, a letter or digit first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Box<str>);

/// The text is not the name of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a room is \"#\" and 1 to 32 lower-case letters, digits, \".\", \"_\" or \"-\", \
     starting with a letter or a digit"
)]
pub struct InvalidRoom;

impl RoomName {
    /// Whether `text` names a room rather than a user.
    #[must_use]
    pub fn is_room(text: &str) -> bool {
        text.starts_with('#')
    }

    /// The name as text, with its `#`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomName {
    type Err = InvalidRoom;

    fn from_str(text: &str) -> Result<Self, InvalidRoom> {
        let name = text.strip_prefix('#').ok_or(InvalidRoom)?;
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if starts_well && name.len() <= MAX_ROOM_NAME_BYTES && name.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidRoom)
        }
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_a_hash_and_a_plain_name() {
        for good in ["#ops", "#a", "#0.x_y-z"] {
            assert_eq!(
                good.parse::<RoomName>()
                    .map(|room| room.to_string())
                    .as_deref(),
                Ok(good)
            );
        }
        let long = format!("#{}", "a".repeat(33));
        for bad in [
            "ops", "#", "##", "#-a", "#Ops", "#o ps", "#ö", "#a\n", &long,
        ] {
            assert_eq!(bad.parse::<RoomName>(), Err(InvalidRoom), "{bad:?}");
        }
    }
}

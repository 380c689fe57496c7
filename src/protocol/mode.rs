//! The permission bits of files and directories.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The permission bits of a file or directory on the client's machine, as `chmod` takes them. The
/// server keeps them and never applies them to its own files. A number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct FileMode(u16);

impl FileMode {
    /// All permission bits.
    const MASK: u32 = 0o777;

    /// The permission bits of a `st_mode`. Set-user-id and the like are not among them.
    #[must_use]
    pub fn from_st_mode(mode: u32) -> Self {
        // The masked value fits.
        Self((mode & Self::MASK) as u16)
    }

    /// The bits, 0o777 at most.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.into()
    }

    /// Parses the octal digits that [`Display`](fmt::Display) writes.
    #[must_use]
    pub fn parse_octal(text: &str) -> Option<Self> {
        let is_octal = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| is_octal)?;
        Self::try_from(bits).ok()
    }
}

impl TryFrom<u32> for FileMode {
    type Error = InvalidFileMode;

    fn try_from(bits: u32) -> Result<Self, InvalidFileMode> {
        if bits > Self::MASK {
            return Err(InvalidFileMode(bits));
        }
        Ok(Self::from_st_mode(bits))
    }
}

impl From<FileMode> for u32 {
    fn from(mode: FileMode) -> Self {
        mode.bits()
    }
}

/// Three octal digits.
impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

/// The number has bits that are no permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is out of range: permission bits are 0 to 511 (octal 777)")]
pub struct InvalidFileMode(u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_written_and_read_as_three_octal_digits() {
        for (bits, text) in [(0o600, "600"), (0, "000"), (0o777, "777"), (0o7, "007")] {
            let mode = FileMode::try_from(bits).expect(text);
            assert_eq!(mode.to_string(), text);
            assert_eq!(FileMode::parse_octal(text), Some(mode));
        }
        for text in ["", "64", "0644", "+44", "648", "1000", " 44"] {
            assert_eq!(FileMode::parse_octal(text), None, "{text}");
        }
    }

    #[test]
    fn a_mode_is_a_number_on_the_wire_and_has_permission_bits_only() {
        let mode = FileMode::from_st_mode(0o100_4644);
        assert_eq!(serde_json::to_string(&mode).expect("JSON"), "420");
        assert_eq!(serde_json::from_str::<FileMode>("420").ok(), Some(mode));
        for json in ["512", "-1", "1.0", "\"644\"", "4294967296"] {
            assert!(serde_json::from_str::<FileMode>(json).is_err(), "{json}");
        }
    }
}

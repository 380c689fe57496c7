//! Names that both sides can have.

use std::ffi::OsStr;
use std::path::{Component, Path};

use crate::client::transfer::part_file;
use crate::protocol::{MAX_NAME_BYTES, reorders_text};

/// Whether a name is one component, drives no terminal and fits the file systems of both sides.
pub(crate) fn is_portable_name(name: &str) -> bool {
    let is_unsafe = |character: char| character.is_control() || reorders_text(character);
    if name.len() > MAX_NAME_BYTES || name.contains(is_unsafe) {
        return false;
    }
    let mut components = Path::new(name).components();
    let only = (components.next(), components.next());
    matches!(only, (Some(Component::Normal(part)), None) if part == name)
}

/// Whether this is the name of an unfinished download.
pub(crate) fn is_unfinished_download(name: &str) -> bool {
    part_file::is_part(OsStr::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portable_name_is_one_component_that_fits_both_sides() {
        for name in ["a", "..a", "a b", "-", "…", "\\", "C:", &"n".repeat(255)] {
            assert!(is_portable_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/",
            "a/",
            "a/b",
            "./a",
            "a\nb",
            "a\u{202e}txt.exe",
            &"n".repeat(256),
        ] {
            assert!(!is_portable_name(name), "{name}");
        }
    }
}

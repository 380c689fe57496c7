//! The permission bits that clients give to files and directories, kept in an extended attribute.
//!
//! ```text
//! user.haul.mode = three octal digits
//! ```
//!
//! They are never applied to the server's own files. The attribute belongs to the entry, not to its
//! content: it stays when the content is edited by hand.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use crate::protocol::FileMode;

/// The name of the attribute.
const ATTRIBUTE_NAME: &str = "user.haul.mode";

/// Bytes of the attribute.
const VALUE_BYTES: usize = 3;

/// The permission bits of an open file or directory, if they are kept.
pub(crate) fn read_mode(file: impl AsFd) -> Option<FileMode> {
    let mut value = [0; VALUE_BYTES];
    let length = fgetxattr(file, ATTRIBUTE_NAME, &mut value).ok()?;
    FileMode::parse_octal(str::from_utf8(value.get(..length)?).ok()?)
}

/// Keeps the permission bits of an open file or directory; `false` if its file system keeps no
/// attributes.
pub(crate) fn keep_mode(file: impl AsFd, mode: FileMode) -> io::Result<bool> {
    let value = mode.to_string();
    match fsetxattr(file, ATTRIBUTE_NAME, value.as_bytes(), XattrFlags::empty()) {
        Err(Errno::NOTSUP) => Ok(false),
        kept => Ok(kept.map(|()| true)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_was_kept_and_another_form_is_ignored() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(read_mode(&file), None);
        for bits in [0o600, 0, 0o777] {
            let mode = FileMode::from_st_mode(bits);
            assert!(keep_mode(&file, mode).expect("kept"));
            assert_eq!(read_mode(&file), Some(mode));
        }
        for value in ["", "64", "0644", "rwx", "\u{ff}4"] {
            let value = value.as_bytes();
            fsetxattr(&file, ATTRIBUTE_NAME, value, XattrFlags::empty()).expect("kept");
            assert_eq!(read_mode(&file), None, "{value:?}");
        }
    }
}

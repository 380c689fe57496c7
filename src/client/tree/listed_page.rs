//! A page of a remote listing, compared with the files of this side.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use crate::client::ClientError;
use crate::client::transfer::blocking::blocking;
use crate::client::transfer::part_file;
use crate::client::tree::download_request::LocalTarget;
use crate::client::tree::join;
use crate::client::tree::unchanged::RemoteFiles;
use crate::protocol::{Kind, LsReply, reorders_text};

/// A page of a listing.
pub(super) struct ListedPage {
    pub(super) reply: LsReply,
    /// The local state of each entry.
    pub(super) states: Vec<LocalState>,
}

/// Whether this side has a file that the server lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalState {
    /// It is transferred.
    Different,
    /// It has the same content and metadata, and such files are skipped.
    Unchanged,
    /// Its name exists, and such files are skipped.
    Existing,
}

/// Compares the files of a page with those of this side.
pub(super) async fn compare_page(
    directory: &LocalTarget,
    skip_existing: bool,
    files: Arc<RemoteFiles>,
    reply: LsReply,
) -> Result<ListedPage, ClientError> {
    if files.is_empty() && !skip_existing {
        let states = vec![LocalState::Different; reply.entries.len()];
        return Ok(ListedPage { reply, states });
    }
    let (local, remote) = (directory.local.clone(), directory.remote.clone());
    blocking(move || {
        let entries = reply.entries.iter();
        let states = entries
            .map(|entry| {
                let name = &entry.name;
                if entry.kind != Kind::File || !is_single_name(name) {
                    return LocalState::Different;
                }
                let local = local.join(name);
                // A directory in the place of the file is a failure.
                let exists = || fs::symlink_metadata(&local).is_ok_and(|it| !it.is_dir());
                if skip_existing && exists() {
                    LocalState::Existing
                } else if files.is_unchanged(&local, &join(&remote, name), entry) {
                    LocalState::Unchanged
                } else {
                    LocalState::Different
                }
            })
            .collect();
        Ok(ListedPage { reply, states })
    })
    .await
}

/// Whether a name from the server names an entry of its directory and nothing else, cannot control a
/// terminal, and is not the name of a part file.
pub(super) fn is_single_name(name: &str) -> bool {
    let is_unsafe = |character: char| character.is_control() || reorders_text(character);
    if name.contains(is_unsafe) || part_file::is_part(OsStr::new(name)) {
        return false;
    }
    let mut components = Path::new(name).components();
    let only = (components.next(), components.next());
    matches!(only, (Some(Component::Normal(part)), None) if part == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_normal_component_is_a_name() {
        for name in ["a", "..a", "a b", "-", "…", "\\", "C:"] {
            assert!(is_single_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/",
            "a/",
            "a/b",
            "/a",
            "./a",
            "a/.",
            "../a",
            "a\0",
            "a\nb",
            "\u{1b}]0;title\u{7}",
            "a\u{202e}txt.exe",
            ".haul-0123456789abcdef.part",
            ".haul-0123456789abcdef-1.part",
        ] {
            assert!(!is_single_name(name), "{name}");
        }
    }
}

//! Why the server denies an operation on a file.

use crate::storage::path::VirtualPath;
use crate::storage::rights::{Right, Rights};

/// Why [`StorageError::Denied`](crate::storage::StorageError::Denied) was returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeniedReason {
    /// The member has other rights in the folder, but not this one.
    MissingRight {
        /// The right that the operation needs.
        right: Right,
        /// The rights that the member has.
        rights: Rights,
    },
    /// The member's access to the home or folder ended while the operation ran.
    AccessLost,
    /// The path is a home or a shared folder itself, which members cannot change.
    Root,
    /// The entry is neither a file nor a directory.
    SpecialFile,
    /// The operating system denies it to the server.
    System,
}

impl DeniedReason {
    /// The message for a member whose operation on `path` was denied.
    pub(crate) fn message(self, path: &VirtualPath) -> String {
        match self {
            Self::MissingRight { right, rights } => missing_right(right, rights, path),
            Self::AccessLost => format!("you have no access to {path} any more"),
            Self::Root => format!(
                "{path} is your home or a shared folder itself, which only the server's operator \
                 can change"
            ),
            Self::SpecialFile => {
                format!("{path} is neither a file nor a directory, so the server does not open it")
            }
            Self::System => format!(
                "the server's system does not let it use {path}; its operator can check the owner \
                 and the permissions of that file"
            ),
        }
    }
}

fn missing_right(right: Right, rights: Rights, path: &VirtualPath) -> String {
    let folder = path.components().next().unwrap_or_default();
    let mut names = rights.names();
    // Who may read may list, so the message for the preset `r` stays short.
    if rights.list && rights.read {
        names.remove(0);
    }
    let allowed = match names.split_last() {
        None => {
            return format!(
                "cannot {} {path}: you have no rights in /{folder}",
                right.as_str()
            );
        }
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} and {last}", first.join(", ")),
    };
    let right = right.as_str();
    format!("cannot {right} {path}: you may only {allowed} in /{folder}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(right: Right, rights: &str) -> String {
        let rights = rights.parse().expect("rights");
        let path = VirtualPath::parse("/team/a/b.txt").expect("a path");
        DeniedReason::MissingRight { right, rights }.message(&path)
    }

    #[test]
    fn a_missing_right_is_named_with_the_folder_and_the_rights_there() {
        assert_eq!(
            message(Right::Delete, "r"),
            "cannot delete /team/a/b.txt: you may only read in /team"
        );
        assert_eq!(
            message(Right::List, "drop"),
            "cannot list /team/a/b.txt: you may only write in /team"
        );
        assert_eq!(
            message(Right::Overwrite, "list,read,write,delete"),
            "cannot overwrite /team/a/b.txt: you may only read, write and delete in /team"
        );
        assert_eq!(
            message(Right::Read, "list"),
            "cannot read /team/a/b.txt: you may only list in /team"
        );
    }
}

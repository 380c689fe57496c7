//! Rights of a member in a folder, and limits of a home or a folder.

use std::fmt;
use std::str::FromStr;

/// One right in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// See [`Rights::list`].
    List,
    /// See [`Rights::read`].
    Read,
    /// See [`Rights::write`].
    Write,
    /// See [`Rights::overwrite`].
    Overwrite,
    /// See [`Rights::delete`].
    Delete,
}

impl Right {
    /// The name of the right, which is also the verb for its use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
        }
    }
}

/// The rights of a member in a mounted folder. A member has all rights in the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent permissions, each named where it is checked"
)]
pub struct Rights {
    /// List a directory, read the metadata of an entry, enter a directory.
    pub list: bool,
    /// Read the bytes of files.
    pub read: bool,
    /// Make new files and directories.
    pub write: bool,
    /// Replace a file.
    pub overwrite: bool,
    /// Remove files and directories, or move them away.
    pub delete: bool,
}

impl Rights {
    /// All rights; the preset `rw`.
    pub const ALL: Self = Self {
        list: true,
        read: true,
        write: true,
        overwrite: true,
        delete: true,
    };

    /// The rights to list and read; the preset `r`.
    pub const READ: Self = Self {
        list: true,
        read: true,
        ..Self::NONE
    };

    /// The right to put new files without seeing any; the preset `drop`. The member learns only
    /// whether a name is in use.
    pub const DROP: Self = Self {
        write: true,
        ..Self::NONE
    };

    const NONE: Self = Self {
        list: false,
        read: false,
        write: false,
        overwrite: false,
        delete: false,
    };

    const PRESETS: [(&'static str, Self); 3] =
        [("r", Self::READ), ("rw", Self::ALL), ("drop", Self::DROP)];

    fn each(self) -> [(Right, bool); 5] {
        [
            (Right::List, self.list),
            (Right::Read, self.read),
            (Right::Write, self.write),
            (Right::Overwrite, self.overwrite),
            (Right::Delete, self.delete),
        ]
    }

    /// Whether `right` is one of these.
    #[must_use]
    pub fn contains(self, right: Right) -> bool {
        self.each().contains(&(right, true))
    }

    /// The names of the rights.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        let allowed = self.each().into_iter().filter(|(_, allowed)| *allowed);
        allowed
            .map(|(right, _)| right.as_str().to_owned())
            .collect()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::PRESETS.into_iter().find(|(_, rights)| rights == self) {
            Some((name, _)) => f.write_str(name),
            None => f.write_str(&self.names().join(",")),
        }
    }
}

impl Rights {
    /// The rights with these names.
    ///
    /// # Errors
    /// [`InvalidRightName`] if one is no name of a right, or there is none.
    pub fn from_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidRightName> {
        let mut rights = Self::NONE;
        for name in names {
            let allowed = match name {
                "list" => &mut rights.list,
                "read" => &mut rights.read,
                "write" => &mut rights.write,
                "overwrite" => &mut rights.overwrite,
                "delete" => &mut rights.delete,
                _ => return Err(InvalidRightName),
            };
            *allowed = true;
        }
        if rights == Self::NONE {
            return Err(InvalidRightName);
        }
        Ok(rights)
    }
}

impl FromStr for Rights {
    type Err = InvalidRights;

    fn from_str(text: &str) -> Result<Self, InvalidRights> {
        if let Some((_, rights)) = Self::PRESETS.into_iter().find(|(name, _)| *name == text) {
            return Ok(rights);
        }
        Self::from_names(text.split(',').map(str::trim)).map_err(|_| InvalidRights)
    }
}

/// A list of names of rights is empty, or has another text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a list of some of list, read, write, overwrite and delete")]
pub struct InvalidRightName;

/// The text is not a list of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "these are not rights: expected r, rw, drop, or some of list, read, write, overwrite and \
     delete, separated by commas"
)]
pub struct InvalidRights;

/// The limits of a home or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceLimits {
    /// Bytes in files; no limit if absent.
    pub bytes: Option<u64>,
    /// Entries: files, directories and links. If absent, [`Self::entries`] says how many.
    pub files: Option<u64>,
}

/// Entries that a limit of bytes allows in addition to one for each block.
const BASE_ENTRIES: u64 = 1000;

/// Bytes of the limit for each entry: a block of most file systems.
const BYTES_PER_ENTRY: u64 = 4096;

impl SpaceLimits {
    /// The most entries; no limit if absent. A limit of bytes implies one, because empty files and
    /// directories take up disk space too.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        let implied = |bytes: u64| (bytes / BYTES_PER_ENTRY).saturating_add(BASE_ENTRIES);
        self.files.or_else(|| self.bytes.map(implied))
    }
}

/// The usage of a home or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Bytes in files, with what is reserved for uploads and copies under way.
    pub used: u64,
    /// Files, directories and links, with those under way.
    pub files: u64,
    /// The limits.
    pub limits: SpaceLimits,
    /// Bytes free on the disk, for everyone together.
    pub free: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_lists_read_back_as_they_are_written() {
        for text in ["r", "rw", "drop", "list", "list,read,write", "list,delete"] {
            let rights: Rights = text.parse().expect("named above");
            assert_eq!(rights.to_string(), text);
            assert_eq!(rights.names().join(",").parse(), Ok(rights));
        }
        assert_eq!("list,read".parse(), Ok(Rights::READ));
    }

    #[test]
    fn a_list_of_names_has_no_presets_and_no_joined_names() {
        assert_eq!(Rights::from_names(["read", "list"]), Ok(Rights::READ));
        for names in [&["rw"][..], &["r"], &["list,read"], &[" list"], &[]] {
            let rights = Rights::from_names(names.iter().copied());
            assert_eq!(rights, Err(InvalidRightName), "{names:?}");
        }
    }

    #[test]
    fn unknown_and_empty_rights_are_refused() {
        for text in ["", ",", "R", "admin", "list,", "list read"] {
            assert_eq!(text.parse::<Rights>(), Err(InvalidRights), "{text}");
        }
    }
}

//! The rows: which work is done, over which line, onto which file system.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::options::Options;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// What moves: one large file, or a tree of small ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    Large,
    Many,
    LineLarge,
    LineMany,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A file system in memory, where a sync costs nothing.
    Memory,
    /// A disk: haul beside the peers as they are, and beside the peers with a sync after them.
    Disk,
    /// A file system in memory, behind a line with a long round trip.
    Line,
}

/// One table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) item: Item,
    pub(crate) direction: Direction,
    /// Whether the line must be encrypted. On the delayed line and with small files sftp takes
    /// part beside those who do not encrypt.
    pub(crate) tls: bool,
    pub(crate) medium: Medium,
}

const fn row(
    name: &'static str,
    item: Item,
    direction: Direction,
    tls: bool,
    medium: Medium,
) -> Row {
    Row {
        name,
        item,
        direction,
        tls,
        medium,
    }
}

pub(crate) const ROWS: &[Row] = &[
    row("down", Item::Large, Direction::Down, false, Medium::Memory),
    row("up", Item::Large, Direction::Up, false, Medium::Memory),
    row(
        "tls-down",
        Item::Large,
        Direction::Down,
        true,
        Medium::Memory,
    ),
    row("tls-up", Item::Large, Direction::Up, true, Medium::Memory),
    row(
        "many-down",
        Item::Many,
        Direction::Down,
        false,
        Medium::Memory,
    ),
    row("many-up", Item::Many, Direction::Up, false, Medium::Memory),
    row("disk-up", Item::Large, Direction::Up, false, Medium::Disk),
    row(
        "disk-tls-up",
        Item::Large,
        Direction::Up,
        true,
        Medium::Disk,
    ),
    row(
        "disk-many-up",
        Item::Many,
        Direction::Up,
        false,
        Medium::Disk,
    ),
    row(
        "line-down",
        Item::LineLarge,
        Direction::Down,
        false,
        Medium::Line,
    ),
    row(
        "line-up",
        Item::LineLarge,
        Direction::Up,
        false,
        Medium::Line,
    ),
    row(
        "line-many-down",
        Item::LineMany,
        Direction::Down,
        false,
        Medium::Line,
    ),
    row(
        "line-many-up",
        Item::LineMany,
        Direction::Up,
        false,
        Medium::Line,
    ),
];

impl Row {
    /// What a person calls it.
    pub(crate) fn title(&self, options: &Options) -> String {
        let what = match self.item.extent(options) {
            Extent::File(size) => bytesize::ByteSize(size).display().iec().to_string(),
            Extent::Tree(files) => format!("{files} files of 4 KiB"),
        };
        let direction = match self.direction {
            Direction::Down => "down",
            Direction::Up => "up",
        };
        let how = match (self.medium, self.tls) {
            (Medium::Memory, false) => "plain, in memory",
            (Medium::Memory, true) => "encrypted, in memory",
            (Medium::Disk, false) => "plain, onto a disk",
            (Medium::Disk, true) => "encrypted, onto a disk",
            (Medium::Line, _) => "each in its usual form, on a line with a long round trip",
        };
        format!("{what} {direction}, {how}")
    }

    /// Whether haul is to encrypt: on the delayed line it does what it does by default.
    pub(crate) fn haul_encrypts(&self) -> bool {
        self.tls || self.medium == Medium::Line
    }

    /// Whether sftp, which always encrypts, is compared in this row.
    pub(crate) fn with_sftp(&self) -> bool {
        self.tls || self.medium == Medium::Line || self.item == Item::Many
    }
}

/// How much an item is.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// Bytes.
    File(u64),
    /// Files of 4 KiB, a hundred to a directory.
    Tree(u32),
}

impl Item {
    /// Its name where it is served, and the name that it gets where it arrives.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Many => "many",
            Self::LineLarge => "line-large",
            Self::LineMany => "line-many",
        }
    }

    pub(crate) fn extent(self, options: &Options) -> Extent {
        match self {
            Self::Large => Extent::File(options.size.0),
            Self::Many => Extent::Tree(options.files),
            Self::LineLarge => Extent::File(options.line_size.0),
            Self::LineMany => Extent::Tree(options.line_files),
        }
    }
}

impl Extent {
    /// The paths of the files of a tree, relative to it; none of a single file.
    pub(crate) fn paths(self) -> impl Iterator<Item = String> {
        let files = match self {
            Self::File(_) => 0,
            Self::Tree(files) => files,
        };
        (0..files).map(|number| format!("{:03}/{:02}", number / 100, number % 100))
    }

    pub(crate) fn is_tree(self) -> bool {
        matches!(self, Self::Tree(_))
    }
}

/// One piece of work for a client.
pub(crate) struct Task<'a> {
    pub(crate) row: &'a Row,
    pub(crate) extent: Extent,
    /// What there is to upload, which is also what those servers serve that serve any directory.
    pub(crate) source: PathBuf,
    /// What a download is to become.
    pub(crate) target: PathBuf,
    /// Where the server, or the line to it, is reached.
    pub(crate) host: IpAddr,
    /// For lists that a client takes its work from.
    pub(crate) scratch: &'a Path,
}

impl Task<'_> {
    pub(crate) fn name(&self) -> &'static str {
        self.row.item.name()
    }

    pub(crate) fn down(&self) -> bool {
        self.row.direction == Direction::Down
    }
}

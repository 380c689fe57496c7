//! The rows: which work is done, over which line, onto which file system.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::options::BenchOptions;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchDirection {
    Down,
    Up,
}

/// The load: one large file, or a tree of small ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchLoad {
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
pub(crate) struct BenchRow {
    pub(crate) name: &'static str,
    pub(crate) item: BenchLoad,
    pub(crate) direction: BenchDirection,
    /// Whether the line must be encrypted. sftp, which always encrypts, also takes part in those rows
    /// of many files and of the delayed line where others do not.
    pub(crate) tls: bool,
    pub(crate) medium: Medium,
}

const fn row(
    name: &'static str,
    item: BenchLoad,
    direction: BenchDirection,
    tls: bool,
    medium: Medium,
) -> BenchRow {
    BenchRow {
        name,
        item,
        direction,
        tls,
        medium,
    }
}

pub(crate) const ROWS: &[BenchRow] = {
    use BenchDirection::{Down, Up};
    use BenchLoad::{Large, LineLarge, LineMany, Many};
    use Medium::{Disk, Line, Memory};
    const PLAIN: bool = false;
    const TLS: bool = true;
    &[
        row("down", Large, Down, PLAIN, Memory),
        row("up", Large, Up, PLAIN, Memory),
        row("tls-down", Large, Down, TLS, Memory),
        row("tls-up", Large, Up, TLS, Memory),
        row("many-down", Many, Down, PLAIN, Memory),
        row("many-up", Many, Up, PLAIN, Memory),
        row("tls-many-down", Many, Down, TLS, Memory),
        row("tls-many-up", Many, Up, TLS, Memory),
        row("disk-up", Large, Up, PLAIN, Disk),
        row("disk-tls-up", Large, Up, TLS, Disk),
        row("disk-many-up", Many, Up, PLAIN, Disk),
        row("line-down", LineLarge, Down, PLAIN, Line),
        row("line-up", LineLarge, Up, PLAIN, Line),
        row("line-many-down", LineMany, Down, PLAIN, Line),
        row("line-many-up", LineMany, Up, PLAIN, Line),
    ]
};

impl BenchRow {
    /// Its title for people.
    pub(crate) fn title(&self, options: &BenchOptions) -> String {
        let what = match self.item.extent(options) {
            Extent::File(size) => bytesize::ByteSize(size).display().iec().to_string(),
            Extent::Tree(files) => format!("{files} files of 4 KiB"),
        };
        let direction = match self.direction {
            BenchDirection::Down => "down",
            BenchDirection::Up => "up",
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
        self.tls || self.medium == Medium::Line || self.item == BenchLoad::Many
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

impl BenchLoad {
    /// Its name where it is served, and the name that it gets where it arrives.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Many => "many",
            Self::LineLarge => "line-large",
            Self::LineMany => "line-many",
        }
    }

    pub(crate) fn extent(self, options: &BenchOptions) -> Extent {
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
    pub(crate) row: &'a BenchRow,
    pub(crate) extent: Extent,
    /// The files to upload, which servers of any directory also serve.
    pub(crate) source: PathBuf,
    /// The path of a download.
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
        self.row.direction == BenchDirection::Down
    }
}

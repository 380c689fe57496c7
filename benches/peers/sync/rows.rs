//! The rows of synchronisation.

use crate::options::BenchOptions;

/// What was done to the source since the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncWork {
    /// Everything is new.
    First,
    /// Nothing.
    Unchanged,
    /// A hundred files have other content.
    Changed,
    /// One per cent of a large file has other bytes, in pieces of 4 KiB.
    Scattered,
    /// A large file has 1 MiB more at its front.
    Inserted,
    /// A large file has another name.
    Renamed,
}

/// The source of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncLoad {
    /// As many small files as in the rows of transfers.
    Few,
    /// Many small files.
    Many,
    /// One large file.
    Large,
}

/// One table.
pub(crate) struct SyncRow {
    pub(crate) name: &'static str,
    pub(crate) work: SyncWork,
    pub(crate) load: SyncLoad,
    pub(crate) down: bool,
    /// Whether it goes through a line with a long round trip.
    pub(crate) line: bool,
}

const fn row(
    name: &'static str,
    work: SyncWork,
    load: SyncLoad,
    down: bool,
    line: bool,
) -> SyncRow {
    SyncRow {
        name,
        work,
        load,
        down,
        line,
    }
}

pub(crate) const SYNC_ROWS: &[SyncRow] = {
    use SyncLoad::{Few, Large, Many};
    use SyncWork::{Changed, First, Inserted, Renamed, Scattered, Unchanged};
    const UP: bool = false;
    const DOWN: bool = true;
    const NEAR: bool = false;
    const FAR: bool = true;
    &[
        row("sync-first-few", First, Few, UP, NEAR),
        row("sync-first", First, Many, UP, NEAR),
        row("sync-unchanged", Unchanged, Many, UP, NEAR),
        row("sync-changed", Changed, Many, UP, NEAR),
        row("sync-scattered", Scattered, Large, UP, NEAR),
        row("sync-inserted", Inserted, Large, UP, NEAR),
        row("sync-renamed", Renamed, Large, UP, NEAR),
        row("sync-down-first-few", First, Few, DOWN, NEAR),
        row("sync-down-first", First, Many, DOWN, NEAR),
        row("sync-down-unchanged", Unchanged, Many, DOWN, NEAR),
        row("sync-down-changed", Changed, Many, DOWN, NEAR),
        row("sync-down-scattered", Scattered, Large, DOWN, NEAR),
        row("sync-down-inserted", Inserted, Large, DOWN, NEAR),
        row("sync-down-renamed", Renamed, Large, DOWN, NEAR),
        row("line-sync-first-few", First, Few, UP, FAR),
        row("line-sync-first", First, Many, UP, FAR),
        row("line-sync-unchanged", Unchanged, Many, UP, FAR),
        row("line-sync-changed", Changed, Many, UP, FAR),
        row("line-sync-scattered", Scattered, Large, UP, FAR),
        row("line-sync-inserted", Inserted, Large, UP, FAR),
        row("line-sync-renamed", Renamed, Large, UP, FAR),
    ]
};

impl SyncRow {
    /// Its title for people.
    pub(crate) fn title(&self, options: &BenchOptions) -> String {
        let what = match self.load.files(options) {
            Some(files) => format!("{files} files of 4 KiB"),
            None => options.size.display().iec().to_string(),
        };
        let work = match self.work {
            SyncWork::First => "all new",
            SyncWork::Unchanged => "unchanged",
            SyncWork::Changed => "100 of them changed",
            SyncWork::Scattered => "1 % changed in pieces of 4 KiB",
            SyncWork::Inserted => "1 MiB inserted at the front",
            SyncWork::Renamed => "renamed",
        };
        let direction = if self.down { "down" } else { "up" };
        let line = if self.line {
            ", on a line with a long round trip"
        } else {
            ""
        };
        format!("sync {direction} of {what}, {work}{line}")
    }
}

impl SyncLoad {
    /// The name of its directory.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Few => "sync-few",
            Self::Many => "sync-many",
            Self::Large => "sync-large",
        }
    }

    /// The number of its small files; `None` if it is a large one.
    pub(crate) fn files(self, options: &BenchOptions) -> Option<u32> {
        match self {
            Self::Few => Some(options.files),
            Self::Many => Some(options.sync_files),
            Self::Large => None,
        }
    }
}

//! The options of the command line.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;

use crate::PeersResult;
use crate::rows::{BenchRow, ROWS};
use crate::sync::{SYNC_ROWS, SyncRow};

/// haul beside nginx, vsftpd, rsync and OpenSSH: the same work, on this machine, in turns.
///
/// Every server is started on a free port of 127.0.0.1 with a configuration of its own in a
/// temporary directory, and all of it is gone afterwards. Peers that are not installed are named
/// and left out.
#[derive(Parser)]
pub(crate) struct BenchOptions {
    /// Only these rows: down, up, tls-down, tls-up, many-down, many-up, tls-many-down, tls-many-up
    /// (in memory); disk-up, disk-tls-up, disk-many-up (onto a disk, with syncs); line-down,
    /// line-up, line-many-down, line-many-up (through a delayed line); rest (start, memory at rest,
    /// size); sync-first-few, sync-first, sync-unchanged, sync-changed, sync-scattered, sync-inserted,
    /// sync-renamed, the same with sync-down- and line-sync- (a tree or a large file that is made equal again)
    #[arg(long = "row", value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,

    /// Only these peers: nginx, vsftpd, rsync, sftp; haul always takes part
    #[arg(long = "peer", value_delimiter = ',', value_name = "PEER")]
    pub(crate) peers: Vec<String>,

    /// Timed runs of each, after one that warms up and is compared byte by byte
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) runs: u16,

    /// The size of the large file
    #[arg(long, default_value = "1GiB")]
    pub(crate) size: ByteSize,

    /// How many small files, of 4 KiB
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) files: u32,

    /// How many small files, of 4 KiB, in the larger tree that is synchronised
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub(crate) sync_files: u32,

    /// The size of the file on the delayed line
    #[arg(long, default_value = "100MiB")]
    pub(crate) line_size: ByteSize,

    /// How many small files on the delayed line
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) line_files: u32,

    /// The round trip of the delayed line, in milliseconds
    #[arg(long, default_value_t = 200, value_name = "MS")]
    round_trip: u64,

    /// A run that has not ended after this is given up, and what it would have taken is estimated
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,

    /// Where the files are: on a file system in memory
    #[arg(long, default_value = "/dev/shm", value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Where the rows with syncs write to: on a disk
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"), value_name = "DIR")]
    pub(crate) disk: PathBuf,

    /// One JSON object per line instead of tables
    #[arg(long)]
    pub(crate) json: bool,

    /// What `cargo bench` hands to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl BenchOptions {
    /// The rows to run, in the order of the tables.
    ///
    /// # Errors
    /// If one is named that there is not.
    pub(crate) fn rows(&self) -> PeersResult<Vec<&'static BenchRow>> {
        for name in &self.rows {
            let is_transfer = ROWS.iter().any(|row| row.name == name);
            let is_sync = SYNC_ROWS.iter().any(|row| row.name == name);
            if name != REST && !is_transfer && !is_sync {
                return Err(format!("there is no row {name}; see --help").into());
            }
        }
        let wanted =
            |row: &&BenchRow| self.rows.is_empty() || self.rows.iter().any(|n| n == row.name);
        Ok(ROWS.iter().filter(wanted).collect())
    }

    /// The rows of synchronisation to run.
    pub(crate) fn sync_rows(&self) -> Vec<&'static SyncRow> {
        let wanted =
            |row: &&SyncRow| self.rows.is_empty() || self.rows.iter().any(|n| n == row.name);
        SYNC_ROWS.iter().filter(wanted).collect()
    }

    /// Whether start, memory at rest and size are wanted.
    pub(crate) fn rest(&self) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|name| name == REST)
    }

    pub(crate) fn one_way(&self) -> Duration {
        Duration::from_millis(self.round_trip) / 2
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

const REST: &str = "rest";

//! Trees and large files that are made equal again: haul beside rsync.
//!
//! Before each round the source is edited, and everybody then brings its own destination up to date. In the
//! first round, which is not timed, the bytes on the wire are counted and the destination is compared.

mod measure;
mod rows;
mod source;
mod table;

use std::net::IpAddr;
use std::path::Path;

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::options::BenchOptions;
use crate::peer::RunningPeer;

pub(crate) use rows::{SYNC_ROWS, SyncRow};

/// One run of a client that makes one directory equal to another.
pub(crate) struct SyncTask<'a> {
    /// The local directory.
    pub(crate) local: &'a Path,
    /// The name of the directory at the server.
    pub(crate) name: &'a str,
    /// Where the server, or the line to it, is reached.
    pub(crate) host: IpAddr,
    /// Whether the local directory is the destination.
    pub(crate) down: bool,
    /// Whether haul encrypts, as it does by default.
    pub(crate) encrypted: bool,
    /// Whether a file that has another name at the destination is looked for there.
    pub(crate) renames: bool,
}

/// Measures and prints these rows.
pub(crate) async fn measure_all(
    rows: &[&'static SyncRow],
    place: &BenchDirectories,
    peers: &[RunningPeer],
    options: &BenchOptions,
) -> PeersResult<()> {
    for row in rows {
        eprintln!("{} …", row.title(options));
        let figures = measure::measure(row, place, peers, options).await?;
        table::print(row, &figures, options);
    }
    Ok(())
}

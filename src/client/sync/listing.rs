//! The two listings of a run and their merge, ahead of the actions.
//!
//! A task receives the entries of the server. A blocking thread scans the local tree, filters both
//! sides and merges them. Both are ahead of the consumer by a bounded number of entries, and end when
//! it is dropped.

use std::future::ready;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::client::sync::entry::{ListedItem, SyncEntry};
use crate::client::sync::filter::PathFilter;
use crate::client::sync::job::SyncDirection;
use crate::client::sync::merge::{MergedListings, PathPair};
use crate::client::sync::remote::{RemoteEntry, RemoteListing};
use crate::client::sync::scan::{LocalScan, ScanOptions};
use crate::client::transfer::umask::umask;
use crate::client::tree_entries::TreeEntries;
use crate::client::{ClientError, Session};
use crate::protocol::{Entry, FileMode};

/// Entries of the server that are passed on together.
const MAX_BATCH_ENTRIES: usize = 512;

/// Pairs that are passed on together.
const MAX_BATCH_PAIRS: usize = 512;

/// Batches that wait for the merge.
const MAX_WAITING_ENTRY_BATCHES: usize = 32;

/// Batches that wait for the consumer of the merge.
const MAX_WAITING_BATCHES: usize = 8;

/// The listing of the server waits for this long until a batch is wanted. Then the consumer may wait for a
/// reply, which would come behind the entries of the listing, and these are in the way.
const MAX_BLOCKED: Duration = Duration::from_millis(100);

/// Entries in the order in which the server lists them. An empty batch marks the end: a listing that
/// ends without it is incomplete, and what it lacks must not be taken for deleted.
type EntryBatch = Result<Vec<Entry>, ClientError>;

/// Pairs in the order of the listings. An empty batch marks the end, as in [`EntryBatch`].
pub(crate) type PairBatch = Result<Vec<PathPair>, ClientError>;

/// What is listed.
#[derive(Debug)]
pub(crate) struct ListingRequest {
    pub(crate) direction: SyncDirection,
    pub(crate) local: PathBuf,
    /// The directory on the server; absent if it does not exist yet.
    pub(crate) remote: Option<String>,
    pub(crate) scan: ScanOptions,
    /// The server adds the digests that it keeps.
    pub(crate) with_digests: bool,
}

/// The merged listings of a run.
pub(crate) struct PairStream {
    pub(crate) batches: mpsc::Receiver<PairBatch>,
    /// Ends the listing of the server when it is dropped.
    pub(crate) listing: Option<AbortOnDropHandle<()>>,
}

impl PairStream {
    /// Starts to list both sides.
    pub(crate) fn start(session: &Session, request: ListingRequest, filter: PathFilter) -> Self {
        let (entry_sender, entries) = mpsc::channel(MAX_WAITING_ENTRY_BATCHES);
        let (batch_sender, batches) = mpsc::channel(MAX_WAITING_BATCHES);
        let listing = request.remote.clone().map(|root| {
            let entries = session.tree_entries(&root, request.with_digests);
            AbortOnDropHandle::new(tokio::spawn(list_remote(entries, entry_sender)))
        });
        spawn_blocking(move || merge(&request, filter, entries, &batch_sender));
        Self { batches, listing }
    }
}

/// Passes the server's entries on, as many together as have arrived, until the last one, an error,
/// or the end of the consumer. While the consumer does not want more, the server is not asked for more.
async fn list_remote(mut entries: TreeEntries, batches: mpsc::Sender<EntryBatch>) {
    let mut batch = Vec::new();
    loop {
        let next = tokio::select! {
            biased;
            next = entries.next(), if batch.len() < MAX_BATCH_ENTRIES => next,
            () = ready(()), if !batch.is_empty() => {
                if batches.capacity() == 0 {
                    let unblocked = timeout(MAX_BLOCKED, batches.reserve()).await;
                    if unblocked.is_err() {
                        entries.pause();
                        // Each pause costs a round trip.
                        let _ = batches.reserve_many(MAX_WAITING_ENTRY_BATCHES / 2).await;
                    }
                }
                if batches.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                    return;
                }
                continue;
            }
        };
        match next {
            Ok(Some(entry)) => batch.push(entry),
            Ok(None) => {
                if !batch.is_empty() {
                    let _ = batches.send(Ok(batch)).await;
                }
                let _ = batches.send(Ok(Vec::new())).await;
                return;
            }
            Err(error) => {
                let _ = batches.send(Err(error)).await;
                return;
            }
        }
    }
}

fn merge(
    request: &ListingRequest,
    filter: PathFilter,
    entries: mpsc::Receiver<EntryBatch>,
    batches: &mpsc::Sender<PairBatch>,
) {
    let sizes = filter.clone();
    let (local_filter, remote_filter) = match request.direction {
        SyncDirection::Up => (filter.clone(), filter.of_destination()),
        SyncDirection::Down => (filter.of_destination(), filter),
    };
    let local = match LocalScan::new(&request.local, request.scan, local_filter) {
        Ok(local) => local,
        Err(error) => {
            let _ = batches.blocking_send(Err(error));
            return;
        }
    };
    let is_missing = request.remote.is_none();
    // Downloads give a local file the permission bits that the umask allows, and no others.
    let mode_mask = match request.direction {
        SyncDirection::Up => u32::MAX,
        SyncDirection::Down => !umask(),
    };
    let entries = ReceivedEntries::new(entries, mode_mask, is_missing);
    let remote = RemoteListing::new(entries, remote_filter);
    match request.direction {
        SyncDirection::Up => pass_on(MergedListings::new(local, remote), &sizes, batches),
        SyncDirection::Down => pass_on(MergedListings::new(remote, local), &sizes, batches),
    }
}

/// Withholds a file of the destination whose size excludes it, unless a file of the source replaces it.
fn withhold_by_size(pair: &mut PathPair, sizes: &PathFilter) {
    if let Some(ListedItem::Entry(old)) = &pair.destination
        && !old.is_dir()
        && !matches!(&pair.source, Some(ListedItem::Entry(new)) if !new.is_dir())
        && let Some(reason) = sizes.check_size(old.size)
    {
        let path = old.path.clone();
        pair.destination = Some(ListedItem::Withheld { path, reason });
    }
}

/// Sends all pairs, to the end or an error.
fn pass_on<S, D>(pairs: MergedListings<S, D>, sizes: &PathFilter, batches: &mpsc::Sender<PairBatch>)
where
    S: Iterator<Item = Result<ListedItem, ClientError>>,
    D: Iterator<Item = Result<ListedItem, ClientError>>,
{
    let mut pairs = pairs.map(|pair| {
        let mut pair = pair?;
        withhold_by_size(&mut pair, sizes);
        Ok(pair)
    });
    loop {
        let batch: PairBatch = pairs.by_ref().take(MAX_BATCH_PAIRS).collect();
        let is_last = batch.as_ref().map_or(true, Vec::is_empty);
        if batches.blocking_send(batch).is_err() || is_last {
            return;
        }
    }
}

/// The entries of the server, on a blocking thread.
struct ReceivedEntries {
    batches: mpsc::Receiver<EntryBatch>,
    batch: std::vec::IntoIter<Entry>,
    mode_mask: u32,
    is_complete: bool,
}

impl ReceivedEntries {
    /// A directory that `is_missing` has no entries, and nothing comes.
    fn new(batches: mpsc::Receiver<EntryBatch>, mode_mask: u32, is_missing: bool) -> Self {
        Self {
            batches,
            batch: Vec::new().into_iter(),
            mode_mask,
            is_complete: is_missing,
        }
    }
}

impl Iterator for ReceivedEntries {
    type Item = Result<RemoteEntry, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.batch.next() {
                let mode = entry.mode;
                let (is_unlisted, is_shared) = (entry.unlisted, entry.shared);
                let entry = SyncEntry {
                    path: entry.name,
                    kind: entry.kind,
                    size: entry.size,
                    modified: entry.modified,
                    mode: mode.map(|mode| FileMode::from_st_mode(mode.bits() & self.mode_mask)),
                    version: entry.version,
                    digest: entry.digest,
                };
                return Some(Ok(RemoteEntry {
                    entry,
                    is_unlisted,
                    is_shared,
                }));
            }
            if self.is_complete {
                return None;
            }
            match self.batches.blocking_recv() {
                Some(Ok(batch)) => {
                    self.is_complete = batch.is_empty();
                    self.batch = batch.into_iter();
                }
                Some(Err(error)) => return Some(Err(error)),
                None => return Some(Err(ClientError::TransferEnded)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::Notify;

    use super::*;
    use crate::client::tests::pair;
    use crate::protocol::{
        Frame, Kind, LsBegin, LsReply, Nothing, Request, TimeReply, encode_begin, encode_ok,
    };

    /// More than what waits for the merge, for the connection and in the pipe.
    const ENTRIES: usize = 3 * MAX_WAITING_ENTRY_BATCHES * MAX_BATCH_ENTRIES;

    fn name(number: usize) -> String {
        format!("{number:08}")
    }

    fn lines(numbers: impl Iterator<Item = usize>) -> Bytes {
        let mut lines = Vec::new();
        for number in numbers {
            let entry = Entry::new(name(number), Kind::File, 0, jiff::Timestamp::UNIX_EPOCH);
            lines.extend(serde_json::to_vec(&entry).expect("JSON"));
            lines.push(b'\n');
        }
        lines.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_nobody_reads_is_not_in_the_way_of_replies() {
        let (client, mut peer) = pair();
        let session = Session::from(client.clone());
        let (sender, mut batches) = mpsc::channel(MAX_WAITING_ENTRY_BATCHES);
        let listing = tokio::spawn(list_remote(session.tree_entries("top", false), sender));
        // All entries can be sent only if the client discards some.
        let discarded = Arc::new(Notify::new());
        let all_sent = Arc::clone(&discarded);
        let script = tokio::spawn(async move {
            let mut start = 0;
            while let Some((id, request)) = peer.next_request().await {
                match request {
                    Request::Ls(ls) => {
                        let last: Option<usize> =
                            ls.cursor.map(|last| last.parse().expect("a number"));
                        start = last.map_or(0, |last| last + 1);
                        let path = "/top".into();
                        peer.say(encode_begin(id, &LsBegin { path })).await;
                        for from in (start..ENTRIES).step_by(500) {
                            let chunk = lines(from..ENTRIES.min(from + 500));
                            peer.send(Frame::Data { stream: id, chunk }).await;
                        }
                        all_sent.notify_one();
                        let (entries, cursor) = (Vec::new(), None);
                        peer.say(encode_ok(id, &LsReply { entries, cursor })).await;
                    }
                    // The listing was answered before.
                    Request::Cancel(_) => peer.say(encode_ok(id, &Nothing {})).await,
                    Request::Ping(_) => {
                        let time = jiff::Timestamp::UNIX_EPOCH;
                        peer.say(encode_ok(id, &TimeReply { time })).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            start
        });
        discarded.notified().await;
        let pinged = client.ping().await;
        pinged.expect("answered although nobody reads the listing");
        let mut names = Vec::new();
        loop {
            let batch = batches.recv().await.expect("an end").expect("no error");
            if batch.is_empty() {
                break;
            }
            names.extend(batch.into_iter().map(|entry| entry.name));
        }
        assert!(names == (0..ENTRIES).map(name).collect::<Vec<_>>());
        listing.await.expect("no panic");
        drop((session, client));
        assert!(
            script.await.expect("no panic") > 0,
            "the listing was continued"
        );
    }
}

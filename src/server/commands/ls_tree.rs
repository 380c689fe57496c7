//! `ls` with `recursive`: a whole tree, as lines on the stream of the request.

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connection::{Outbox, SHORT_CHUNK_BYTES};
use crate::protocol::{Entry, Ls, LsBegin, LsReply, encode_begin, encode_ok};
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::session::request_log::RequestOutcome;
use crate::server::transfer::running_transfers::TransferGuard;
use crate::storage::{StorageError, TreeListing};

/// The most entries in one reply.
const MAX_TREE_ENTRIES: u32 = 100_000;

/// A chunk ends with the line that reaches this length. No line is as long as the rest of a short
/// chunk.
const CHUNK_FILL_BYTES: usize = SHORT_CHUNK_BYTES / 2;

/// Sends the entries of a tree on stream `id`, once `listings` has a permit for it.
pub(crate) async fn list_tree(
    id: u32,
    ls: Ls,
    member: &Member,
    outbox: &Outbox,
    listings: &Semaphore,
    transfer: &TransferGuard,
) -> RequestOutcome {
    let mut sent = 0;
    let work = async {
        let _permit = listings.acquire().await;
        let path = member.resolve(ls.path.as_deref().unwrap_or("."))?;
        let begin = LsBegin {
            path: path.to_string(),
        };
        let (after, digests) = (ls.cursor, ls.digests);
        let listing = member
            .with_view(move |view| view.list_tree(&path, after.as_deref(), digests))
            .await?;
        outbox.send(encode_begin(id, &begin)).await?;
        let limit = ls.limit.map_or(MAX_TREE_ENTRIES, std::num::NonZeroU32::get);
        let mut reader = TreeReader {
            listing,
            left: limit.min(MAX_TREE_ENTRIES),
            last: None,
            stop: transfer.cancel.clone(),
        };
        loop {
            // A slow client costs no memory: the slot comes before the lines.
            let slot = outbox.data_slot().await?;
            let (lines, is_end);
            (reader, lines, is_end) = member.disk.run(move || reader.read_lines()).await?;
            if !lines.is_empty() {
                let length = lines.len();
                sent += length as u64;
                transfer.progress.add_moved(length as u64);
                slot.send(id, lines);
                // Without the slot, which other transfers of the session need.
                member.throttle_download(length).await;
            }
            if is_end || reader.left == 0 {
                let cursor = reader.last.filter(|_| !is_end);
                return Ok(encode_ok(
                    id,
                    &LsReply {
                        entries: Vec::new(),
                        cursor,
                    },
                ));
            }
        }
    };
    let reply = transfer.cancel.run_until_cancelled(work).await;
    RequestOutcome {
        reply: reply.unwrap_or(Err(CommandError::Cancelled)),
        bytes: sent,
        upload: None,
    }
}

/// Reads a tree in pieces of one chunk.
struct TreeReader {
    listing: TreeListing,
    /// Entries that the reply may still have.
    left: u32,
    /// The path of the last entry.
    last: Option<String>,
    stop: CancellationToken,
}

impl TreeReader {
    /// The next lines, and whether they are the last ones. Blocks on the disk.
    fn read_lines(mut self) -> Result<(Self, Bytes, bool), StorageError> {
        let Self {
            listing,
            left,
            last,
            stop,
        } = &mut self;
        let mut lines = Vec::new();
        let mut show = |entry: Entry| {
            push_line(&mut lines, &entry);
            *left -= 1;
            *last = Some(entry.name);
            *left > 0 && lines.len() < CHUNK_FILL_BYTES
        };
        let has_more = listing.advance(&|| stop.is_cancelled(), &mut show)?;
        Ok((self, lines.into(), !has_more))
    }
}

fn push_line(lines: &mut Vec<u8>, entry: &Entry) {
    // Writing plain values to memory cannot fail.
    let _ = serde_json::to_writer(&mut *lines, entry);
    lines.push(b'\n');
}

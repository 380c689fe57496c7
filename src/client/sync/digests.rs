//! Digests of files that are compared: kept ones of the server, and those that have to be computed.

use std::path::Path;

use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;

use crate::client::sync::context::SyncContext;
use crate::client::sync::entry::ListedItem;
use crate::client::sync::job::SyncDirection;
use crate::client::sync::listing::PairBatch;
use crate::client::sync::merge::PathPair;
use crate::client::transfer::blocking::blocking;
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError};
use crate::protocol::{Algorithm, Digest, Hasher};

/// Files whose digests are computed at the same time.
pub(crate) const MAX_CONCURRENT_DIGESTS: usize = 8;

/// Batches of pairs with their digests that wait for the consumer.
const MAX_WAITING_BATCHES: usize = 2;

/// Passes the pairs on with the digests that their comparison needs, in the same order.
pub(crate) fn with_digests(
    context: &SyncContext,
    mut batches: mpsc::Receiver<PairBatch>,
) -> mpsc::Receiver<PairBatch> {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
    let context = context.clone();
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            let batch = match batch {
                Ok(pairs) => Ok(stream::iter(pairs)
                    .map(|pair| add_digests(&context, pair))
                    .buffered(MAX_CONCURRENT_DIGESTS)
                    .collect()
                    .await),
                Err(error) => Err(error),
            };
            // The consumer ends the work by going away, also in the middle of a batch.
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn add_digests(context: &SyncContext, mut pair: PathPair) -> PathPair {
    if let PathPair {
        source: Some(ListedItem::Entry(source)),
        destination: Some(ListedItem::Entry(destination)),
    } = &mut pair
        && context.options.rules.needs_digests(source, destination)
    {
        let (local, remote) = match context.direction {
            SyncDirection::Up => (source, destination),
            SyncDirection::Down => (destination, source),
        };
        let is_usable = |digest: &Digest| {
            let algorithm = digest.algorithm();
            algorithm.resists_collisions() || algorithm == context.options.algorithm
        };
        remote.digest = remote.digest.filter(is_usable);
        if remote.digest.is_none() {
            remote.digest = remote_digest(context, &remote.path).await;
        }
        if let Some(digest) = remote.digest {
            local.digest = local_digest(context, &local.path, digest.algorithm()).await;
        }
    }
    pair
}

/// The digest of a file on the server. `None` if the server cannot compute it: then the file is
/// transferred, and the failure is reported with that if it lasts.
pub(crate) async fn remote_digest(context: &SyncContext, path: &str) -> Option<Digest> {
    let (path, algorithm) = (context.remote_path(path), context.options.algorithm);
    let path = path.as_str();
    let hash = |client: Client| async move { client.hash(path, algorithm).await };
    let reply = context.session.retry(&context.progress, hash).await;
    reply.ok().map(|reply| reply.digest)
}

/// The digest of a local file. `None` if it cannot be read, or changes meanwhile.
pub(crate) async fn local_digest(
    context: &SyncContext,
    path: &str,
    algorithm: Algorithm,
) -> Option<Digest> {
    let path = context.local_path(path);
    blocking(move || compute(&path, algorithm)).await.ok()
}

fn compute(path: &Path, algorithm: Algorithm) -> Result<Digest, ClientError> {
    let mut file = LocalFile::open(path)?;
    let mut hasher = Hasher::new(algorithm);
    while let Some(chunk) = file.next_chunk()? {
        hasher.update(&chunk);
    }
    Ok(hasher.finish())
}

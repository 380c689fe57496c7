//! Small puts: taken in whole, without a task of their own, and committed together.
//!
//! Only the last put that was begun can be held. Whatever else comes before its end, or if nothing
//! comes, it is opened like any other: its client may wait to hear that it begins.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::protocol::{End as PutEnd, Put};
use crate::server::commands::put::small_upload;
use crate::server::session::request_log::RequestLog;
use crate::server::session::request_loop::RequestLoop;
use crate::server::session::state::CloseReason;
use crate::server::transfer::coalescer::{PendingUpload, ReceivedUpload, UploadCoalescer};
use crate::server::transfer::registry::TransferGuard;
use crate::server::transfer::upload_registry::UploadKey;

/// The small puts of a session that has had one.
#[derive(Default)]
pub(crate) struct SmallPut {
    held: Option<PendingUpload>,
    gathered: Arc<UploadCoalescer>,
    /// Some may have gathered of which nobody has told the worker.
    fresh: bool,
}

impl<R: AsyncRead + Unpin + Send> RequestLoop<'_, R> {
    /// Whether something is to be done once the peer pauses.
    pub(crate) fn is_gathering(&self) -> bool {
        let small = self.small.as_ref();
        self.asked || small.is_some_and(|small| small.fresh || small.held.is_some())
    }

    /// Whether put `id` is the one that is held.
    pub(crate) fn holds(&self, id: u32) -> bool {
        let held = self.small.as_ref().and_then(|small| small.held.as_ref());
        held.is_some_and(|held| held.id == id)
    }

    /// Holds a put until its end.
    pub(crate) fn hold(&mut self, job: RequestLog, id: u32, put: Put, underway: TransferGuard) {
        self.transfers.forget_put(id);
        let small = self.small.get_or_insert_default();
        small.held = Some(PendingUpload::new(id, put, job, underway));
    }

    /// Takes the data of the put that is held.
    pub(crate) async fn hold_data(&mut self, chunk: Bytes) -> Result<(), CloseReason> {
        let Some(held) = self.small.as_mut().and_then(|small| small.held.as_mut()) else {
            return Ok(());
        };
        let id = held.id;
        if chunk.is_empty() {
            return self.complete(PutEnd::default()).await;
        }
        if let Some(chunk) = held.take(chunk) {
            self.open_held().await?;
            self.transfers.data(id, chunk).await?;
        }
        Ok(())
    }

    /// Ends the put that is held.
    pub(crate) async fn complete(&mut self, end: PutEnd) -> Result<(), CloseReason> {
        let Some(small) = &mut self.small else {
            return Ok(());
        };
        let (Some(mut held), gathered) = (small.held.take(), Arc::clone(&small.gathered)) else {
            return Ok(());
        };
        let length = held.received();
        held.underway.progress.moves(length as u64);
        let path = held.job.path().map_or(0, str::len);
        let mut room = gathered.try_room(length, path);
        if room.is_none() {
            // What has gathered is what has to go first.
            self.commit_gathered();
            room = gathered.room(length, path).await;
        }
        let path = match self.member.resolve(&held.put.path) {
            Ok(path) => path,
            Err(error) => {
                drop(held.underway);
                return self.finish(held.job, Err(error)).await;
            }
        };
        let content = held.take_content();
        let member = &self.member;
        let key = UploadKey::new(member.authority.id, &path, held.put.size);
        let puts = &member.shared.uploads;
        let whole = ReceivedUpload {
            id: held.id,
            active: puts.register(key, &member.session, &member.gone),
            any_digest: held.put.digest.is_none(),
            upload: small_upload(path, &held.put, content, end.digest),
            job: held.job,
            underway: held.underway,
            end,
            room,
        };
        gathered.add(whole, &member.view());
        if let Some(small) = &mut self.small {
            small.fresh = true;
        }
        Ok(())
    }

    /// The peer pauses, or wants something else.
    pub(crate) async fn settle_small(&mut self) -> Result<(), CloseReason> {
        self.begin_gets();
        self.settle_puts().await
    }

    /// The peer wants something else than to put.
    pub(crate) async fn settle_puts(&mut self) -> Result<(), CloseReason> {
        self.open_held().await?;
        self.commit_gathered();
        Ok(())
    }

    /// Opens the put that is held like one that is large.
    pub(crate) async fn open_held(&mut self) -> Result<(), CloseReason> {
        let Some(mut held) = self.small.as_mut().and_then(|small| small.held.take()) else {
            return Ok(());
        };
        let id = held.id;
        let content = held.take_content();
        self.open_put(held.job, id, held.put, held.underway).await?;
        for chunk in content {
            self.transfers.data(id, chunk).await?;
        }
        Ok(())
    }

    /// Has the disk begin with what has gathered, unless it is at work: then it goes on with it.
    fn commit_gathered(&mut self) {
        let Some(small) = &mut self.small else {
            return;
        };
        small.fresh = false;
        if !small.gathered.wants_worker() {
            return;
        }
        let gathered = Arc::clone(&small.gathered);
        let member = self.member.clone();
        let (outbox, gone) = self.way_out();
        self.spawn(async move { gathered.work(member, outbox, gone).await });
    }
}

//! A run: the stages of a plan, in order.
//!
//! One task owns the run. It receives the merged listings while transfers are under way, starts the
//! actions of the current stage as capacity allows, and keeps the others in [`DeferredActions`].
//! Changes on the server are requests that are outstanding together; changes of the local tree are
//! made one after the other, because a directory must exist before what is in it.

use std::collections::{HashMap, VecDeque};
use std::future::ready;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use crate::client::sync::action::{PlannedAction, SkipReason, SyncAction};
use crate::client::sync::context::SyncContext;
use crate::client::sync::deferred::DeferredActions;
use crate::client::sync::digests::with_digests;
use crate::client::sync::entry::{WithheldReason, is_within};
use crate::client::sync::files::{SyncTransfers, TransferResult};
use crate::client::sync::full::FullDestination;
use crate::client::sync::job::{SyncDirection, SyncJob, SyncOutcome, SyncSummary};
use crate::client::sync::listing::{PairBatch, PairStream};
use crate::client::sync::merge::PathPair;
use crate::client::sync::operations::{PerformedAction, perform};
use crate::client::sync::plan::Planner;
use crate::client::sync::renames::SurplusFile;
use crate::client::sync::roots::prepare;
use crate::client::sync::rules::{Comparison, TransferReason};
use crate::client::{Client, ClientError, Progress, Session};

/// Changes on the server that are outstanding together.
const MAX_OPERATIONS: usize = 64;

impl Session {
    /// Makes one directory equal to another, of which one is local and one on the server. Only what
    /// differs is transferred. Files appear complete or not at all, and an interrupted run is
    /// continued by the next.
    ///
    /// `events` must be read while this runs, or closed.
    ///
    /// # Errors
    /// An error that ends the whole run, such as a connection that does not come back. Errors of one
    /// path are reported in `events` and counted.
    pub async fn sync(
        &self,
        job: SyncJob,
        progress: &Progress,
        events: mpsc::Sender<SyncOutcome>,
    ) -> Result<SyncSummary, ClientError> {
        let prepared = prepare(self, progress, job).await?;
        let context = prepared.context;
        let saved_before = progress.saved_bytes();
        let mut run = SyncRun::new(&context, prepared.destination_existed, events);
        let PairStream { batches, listing } =
            PairStream::start(self, prepared.listing, prepared.filter);
        let batches = if context.options.rules.comparison == Comparison::Checksum {
            with_digests(&context, batches)
        } else {
            batches
        };
        run.transfer(batches).await?;
        drop(listing);
        run.detect_renames().await?;
        progress.found_all();
        run.run_queue().await?;
        run.delete_and_replace().await?;
        run.set_directory_metadata().await?;
        run.summary.delta_saved_bytes = progress.saved_bytes() - saved_before;
        Ok(run.summary)
    }
}

impl Client {
    /// See [`Session::sync`]; this fails when the connection is lost.
    ///
    /// # Errors
    /// See [`Session::sync`].
    pub async fn sync(
        &self,
        job: SyncJob,
        progress: &Progress,
        events: mpsc::Sender<SyncOutcome>,
    ) -> Result<SyncSummary, ClientError> {
        let session = Session::from(self.clone());
        session.sync(job, progress, events).await
    }
}

/// The state of a run.
pub(crate) struct SyncRun {
    pub(crate) context: SyncContext,
    events: mpsc::Sender<SyncOutcome>,
    pub(crate) summary: SyncSummary,
    planner: Planner,
    pub(crate) deferred: DeferredActions,
    /// Actions of the current stage that wait for capacity.
    queue: VecDeque<SyncAction>,
    /// Transfers whose old file is in the backup directory now.
    backed_up: VecDeque<SyncAction>,
    transfers: SyncTransfers,
    /// The transfers that are under way, by path.
    transferring: HashMap<String, SyncAction>,
    operations: FuturesUnordered<BoxFuture<'static, Result<PerformedAction, ClientError>>>,
    full: FullDestination,
    /// A local directory that could not be made: nothing is tried below it.
    failed_directory: Option<String>,
    /// Something of the source could not be read or transferred, so nothing is deleted.
    pub(crate) is_incomplete: bool,
}

impl SyncRun {
    fn new(
        context: &SyncContext,
        destination_existed: bool,
        events: mpsc::Sender<SyncOutcome>,
    ) -> Self {
        let rules = context.options.rules;
        Self {
            context: context.clone(),
            events,
            summary: SyncSummary::default(),
            planner: Planner::new(rules),
            deferred: DeferredActions::new(rules.delete, destination_existed),
            queue: VecDeque::new(),
            backed_up: VecDeque::new(),
            transfers: SyncTransfers::new(context),
            transferring: HashMap::new(),
            operations: FuturesUnordered::new(),
            full: FullDestination::default(),
            failed_directory: None,
            is_incomplete: false,
        }
    }

    /// Plans all pairs, and runs the first stage meanwhile.
    async fn transfer(
        &mut self,
        mut batches: mpsc::Receiver<PairBatch>,
    ) -> Result<(), ClientError> {
        let mut is_listing = true;
        while is_listing || !self.is_idle() {
            self.start_queued().await?;
            tokio::select! {
                biased;
                finished = self.transfers.next(), if !self.transfers.is_idle() => {
                    self.finish_transfers(finished?).await?;
                }
                Some(performed) = self.operations.next() => self.finish_operation(performed?).await?,
                batch = batches.recv(), if is_listing && self.queue.is_empty() => {
                    let pairs = batch.ok_or(ClientError::TransferEnded)??;
                    is_listing = !pairs.is_empty();
                    self.plan(pairs).await;
                }
                // Last, so that files that are known already are sent together.
                () = ready(()), if self.transfers.can_start() => {
                    let finished = self.transfers.start();
                    self.finish_transfers(finished).await?;
                }
                else => {}
            }
        }
        let unchanged = self.planner.unchanged();
        self.summary.unchanged = unchanged.files;
        self.summary.unchanged_bytes = unchanged.bytes;
        Ok(())
    }

    /// Runs all queued actions to their end.
    pub(crate) async fn run_queue(&mut self) -> Result<(), ClientError> {
        while !self.is_idle() {
            self.start_queued().await?;
            tokio::select! {
                biased;
                finished = self.transfers.next(), if !self.transfers.is_idle() => {
                    self.finish_transfers(finished?).await?;
                }
                Some(performed) = self.operations.next() => self.finish_operation(performed?).await?,
                () = ready(()), if self.transfers.can_start() => {
                    let finished = self.transfers.start();
                    self.finish_transfers(finished).await?;
                }
                else => {}
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.backed_up.is_empty()
            && self.transfers.is_idle()
            && self.operations.is_empty()
    }

    /// Plans the next pairs, none at the end, and sorts the actions into those of the current stage and
    /// those of later ones.
    async fn plan(&mut self, pairs: Vec<PathPair>) {
        let mut planned: Vec<PlannedAction> = Vec::new();
        if pairs.is_empty() {
            planned.extend(self.planner.finish());
        }
        for pair in pairs {
            planned.extend(self.planner.push(pair));
        }
        for planned in planned {
            match self.deferred.defer(planned) {
                None => {}
                Some(SyncAction::Skip { path, reason }) => {
                    if matches!(reason, SkipReason::KeptDirectoryInTheWay) {
                        self.deferred.forget_deletions(&path);
                    }
                    self.skip(path, reason).await;
                }
                Some(action) => self.enqueue(action),
            }
        }
    }

    /// Adds an action to the current stage.
    pub(crate) fn enqueue(&mut self, action: SyncAction) {
        if let SyncAction::Transfer { entry, .. } = &action
            && !self.context.options.dry_run
        {
            self.context.progress.found_file(entry.size);
        }
        self.queue.push_back(action);
    }

    /// Starts queued actions while there is capacity for the first of them.
    async fn start_queued(&mut self) -> Result<(), ClientError> {
        while let Some(SyncAction::Transfer { entry, .. }) = self.backed_up.front()
            && self.transfers.has_capacity_for(entry.size)
            && let Some(action) = self.backed_up.pop_front()
        {
            self.start_transfer(action);
        }
        while let Some(action) = self.queue.front() {
            let has_capacity = match action {
                _ if self.context.options.dry_run => true,
                SyncAction::Transfer { entry, .. } => {
                    self.operations.len() < MAX_OPERATIONS
                        && self.backed_up.is_empty()
                        && self.transfers.has_capacity_for(entry.size)
                }
                _ => self.operations.len() < MAX_OPERATIONS,
            };
            if !has_capacity {
                return Ok(());
            }
            if let Some(action) = self.queue.pop_front() {
                self.start(action).await?;
            }
        }
        Ok(())
    }

    async fn start(&mut self, action: SyncAction) -> Result<(), ClientError> {
        let is_below_failed = |directory: &String| is_within(action.path(), directory);
        if self.failed_directory.as_ref().is_some_and(is_below_failed) {
            return Ok(());
        }
        if self.context.options.dry_run {
            self.done(action).await;
            return Ok(());
        }
        let keeps_old = self.context.options.backup_directory.is_some();
        if let SyncAction::Transfer {
            entry, replaces, ..
        } = &action
        {
            if let Some(error) = self.full.refusal(&self.context, entry) {
                return self.fail(action, error).await;
            }
            if replaces.is_none() || !keeps_old {
                self.start_transfer(action);
                return Ok(());
            }
        }
        let performing = perform(self.context.clone(), action);
        match self.context.direction {
            SyncDirection::Up => self.operations.push(Box::pin(performing)),
            SyncDirection::Down => {
                let performed = performing.await?;
                self.finish_operation(performed).await?;
            }
        }
        Ok(())
    }

    fn start_transfer(&mut self, action: SyncAction) {
        if let SyncAction::Transfer {
            entry, replaces, ..
        } = &action
        {
            self.transfers
                .add(&entry.path, entry.size, replaces.is_some());
            self.transferring.insert(entry.path.clone(), action);
        }
    }

    async fn finish_transfers(&mut self, finished: Vec<TransferResult>) -> Result<(), ClientError> {
        for (path, result) in finished {
            let Some(mut action) = self.transferring.remove(&path) else {
                continue;
            };
            match result {
                Ok(size) => {
                    // It may have grown since it was listed.
                    if let SyncAction::Transfer { entry, .. } = &mut action {
                        entry.size = size;
                    }
                    self.done(action).await;
                }
                Err(error) => self.fail(action, error).await?,
            }
        }
        Ok(())
    }

    async fn finish_operation(
        &mut self,
        (action, result): PerformedAction,
    ) -> Result<(), ClientError> {
        match (action, result) {
            (action @ SyncAction::Transfer { .. }, Ok(())) => self.backed_up.push_back(action),
            (action, Ok(())) => self.done(action).await,
            // To send the file is always possible.
            (SyncAction::Move { from, entry }, Err(error)) if !error.ends_everything() => {
                self.deferred.surplus.push(SurplusFile {
                    path: from.into(),
                    size: entry.size,
                    modified: entry.modified,
                });
                self.enqueue(SyncAction::Transfer {
                    entry,
                    replaces: None,
                    reason: TransferReason::New,
                });
            }
            (SyncAction::Copy { entry, .. }, Err(error)) if !error.ends_everything() => {
                self.enqueue(SyncAction::Transfer {
                    entry,
                    replaces: None,
                    reason: TransferReason::New,
                });
            }
            (action, Err(error)) => {
                if matches!(action, SyncAction::MakeDirectory(_))
                    && self.context.direction == SyncDirection::Down
                {
                    self.failed_directory = Some(action.path().to_owned());
                }
                self.fail(action, error).await?;
            }
        }
        Ok(())
    }

    async fn skip(&mut self, path: String, reason: SkipReason) {
        if reason.is_failure() {
            self.summary.failed += 1;
        } else {
            self.summary.skipped += 1;
        }
        // A name that the other side cannot have stays out of every run, and its path is not touched;
        // what could not be read may be there the next time.
        self.is_incomplete |= matches!(
            &reason,
            SkipReason::Withheld(WithheldReason::Failed(ClientError::Local { .. }))
        );
        self.report(SyncOutcome::Done(SyncAction::Skip { path, reason }))
            .await;
    }

    async fn done(&mut self, action: SyncAction) {
        let summary = &mut self.summary;
        match &action {
            SyncAction::MakeDirectory(_) => summary.directories += 1,
            SyncAction::Transfer { entry, .. } => {
                summary.transferred += 1;
                summary.transferred_bytes += entry.size;
            }
            SyncAction::SetMetadata { .. } => summary.metadata += 1,
            SyncAction::Move { entry, .. } | SyncAction::Copy { entry, .. } => {
                summary.renamed += 1;
                summary.renamed_bytes += entry.size;
            }
            SyncAction::Delete(_) => summary.deleted += 1,
            SyncAction::Keep(_) | SyncAction::Skip { .. } => {}
        }
        self.report(SyncOutcome::Done(action)).await;
    }

    /// Reports the failure, or returns it if it ends the run.
    async fn fail(&mut self, action: SyncAction, error: ClientError) -> Result<(), ClientError> {
        let is_full = self.full.note(&action, &error);
        if error.ends_everything() && !is_full {
            return Err(error);
        }
        self.summary.failed += 1;
        self.is_incomplete = true;
        let path = action.path().to_owned();
        self.report(SyncOutcome::Failed { path, error }).await;
        Ok(())
    }

    pub(crate) async fn report(&mut self, event: SyncOutcome) {
        // Nobody has to listen.
        let _ = self.events.send(event).await;
    }
}

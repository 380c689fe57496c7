//! The files of a tree in one direction: small ones through the pipeline, large ones and those that
//! the pipeline hands back separately.

use std::collections::VecDeque;
use std::future::pending;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::client::tree::direction::{FinishedFile, FoundFile, PipelinedTransfer, TransferAttempt};
use crate::client::tree::pipeline::{Pipeline, PipelineOutcome, is_small};
use crate::client::{ClientError, Progress, Session};

/// Files that are moved separately at the same time.
pub(crate) const MAX_SEPARATE_FILES: usize = 32;

/// The transfers of one job.
pub(crate) struct FileTransfers<T: PipelinedTransfer> {
    direction: T,
    session: Session,
    progress: Progress,
    pipeline: Pipeline<T>,
    /// Files that the pipeline handed back. Bounded by its limits, since nothing is added meanwhile.
    retries: VecDeque<(FoundFile<T::File>, TransferAttempt)>,
    separate: FuturesUnordered<BoxFuture<'static, FinishedFile<T>>>,
}

impl<T: PipelinedTransfer> FileTransfers<T> {
    pub(crate) fn new(direction: T, session: &Session, progress: &Progress) -> Self {
        Self {
            pipeline: Pipeline::new(direction.clone(), session, progress),
            direction,
            session: session.clone(),
            progress: progress.clone(),
            retries: VecDeque::new(),
            separate: FuturesUnordered::new(),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pipeline.is_idle() && self.retries.is_empty() && self.separate.is_empty()
    }

    /// Whether a file of this size may be added. After a failure of the connection no file is, until
    /// those that it affected are under way again.
    pub(crate) fn has_capacity_for(&self, size: u64) -> bool {
        let has_capacity = if is_small(size) {
            self.pipeline.has_capacity()
        } else {
            self.separate.len() < MAX_SEPARATE_FILES
        };
        has_capacity && self.retries.is_empty()
    }

    /// Files that are being moved separately.
    pub(crate) fn separate_files(&self) -> usize {
        self.separate.len()
    }

    pub(crate) fn add(&mut self, file: T::File, size: u64) {
        let found = FoundFile { file, size };
        if is_small(size) {
            self.pipeline.add(found);
        } else {
            self.transfer(found, TransferAttempt::First);
        }
    }

    /// Whether [`start`](Self::start) would send anything now.
    pub(crate) fn can_start(&self) -> bool {
        self.pipeline.can_start()
    }

    /// Sends the small files that were added. Returns those that failed at once.
    pub(crate) fn start(&mut self) -> Vec<FinishedFile<T>> {
        let outcomes = self.pipeline.start();
        self.handle(outcomes)
    }

    /// Resolves once files are finished, or capacity may have changed. Pending while idle. Cancel-safe.
    ///
    /// # Errors
    /// Only if the runtime is shutting down.
    pub(crate) async fn next(&mut self) -> Result<Vec<FinishedFile<T>>, ClientError> {
        tokio::select! {
            biased;
            outcomes = self.pipeline.next(), if !self.pipeline.is_idle() => {
                let outcomes = outcomes?;
                Ok(self.handle(outcomes))
            }
            Some(finished) = self.separate.next() => {
                self.start_retries();
                Ok(vec![finished])
            }
            else => pending().await,
        }
    }

    fn handle(&mut self, outcomes: Vec<PipelineOutcome<T>>) -> Vec<FinishedFile<T>> {
        let mut all = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome {
                PipelineOutcome::Finished(finished) => all.push(finished),
                PipelineOutcome::Separate(found, attempt) => {
                    self.retries.push_back((found, attempt));
                }
            }
        }
        self.start_retries();
        all
    }

    fn start_retries(&mut self) {
        while self.separate.len() < MAX_SEPARATE_FILES
            && let Some((found, attempt)) = self.retries.pop_front()
        {
            self.transfer(found, attempt);
        }
    }

    fn transfer(&self, found: FoundFile<T::File>, attempt: TransferAttempt) {
        let transfer = self
            .direction
            .transfer(&self.session, found, &self.progress, attempt);
        self.separate.push(transfer);
    }
}

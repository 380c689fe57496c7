//! The transfers of a run, in its direction, by the machinery of whole trees.

use crate::client::sync::context::SyncContext;
use crate::client::sync::job::SyncDirection;
use crate::client::tree::download_request::{DownloadDirection, LocalTarget};
use crate::client::tree::transfers::FileTransfers;
use crate::client::tree::upload_request::{LocalSource, UploadDirection};
use crate::client::{ClientError, FileOptions};
use crate::protocol::IfExists;

/// The level of an entry that the user did not name.
const BELOW_ROOT: u32 = 1;

/// A file that was transferred, by its path relative to the roots, with its size.
pub(crate) type TransferResult = (String, Result<u64, ClientError>);

/// The files of a run that are under way.
pub(crate) struct SyncTransfers {
    context: SyncContext,
    transfers: DirectedTransfers,
}

enum DirectedTransfers {
    Up(FileTransfers<UploadDirection>),
    Down(FileTransfers<DownloadDirection>),
}

impl SyncTransfers {
    pub(crate) fn new(context: &SyncContext) -> Self {
        let (session, progress) = (&context.session, &context.progress);
        let transfers = match context.direction {
            SyncDirection::Up => {
                let direction = UploadDirection {
                    keeps_modes: context.options.rules.modes,
                    keeps_existing: false,
                };
                DirectedTransfers::Up(FileTransfers::new(direction, session, progress))
            }
            SyncDirection::Down => {
                let direction = DownloadDirection {
                    options: file_options(context, true),
                };
                DirectedTransfers::Down(FileTransfers::new(direction, session, progress))
            }
        };
        Self {
            context: context.clone(),
            transfers,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        match &self.transfers {
            DirectedTransfers::Up(transfers) => transfers.is_idle(),
            DirectedTransfers::Down(transfers) => transfers.is_idle(),
        }
    }

    /// Whether a file of this size may be added.
    pub(crate) fn has_capacity_for(&self, size: u64) -> bool {
        let (has_capacity, separate) = match &self.transfers {
            DirectedTransfers::Up(transfers) => {
                (transfers.has_capacity_for(size), transfers.separate_files())
            }
            DirectedTransfers::Down(transfers) => {
                (transfers.has_capacity_for(size), transfers.separate_files())
            }
        };
        has_capacity && separate < self.context.options.jobs
    }

    /// Adds the file at this path, which was found with this size.
    pub(crate) fn add(&mut self, path: &str, size: u64, replaces_file: bool) {
        let local = self.context.local_path(path);
        let remote = self.context.remote_path(path);
        match &mut self.transfers {
            DirectedTransfers::Up(transfers) => {
                let options = file_options(&self.context, replaces_file);
                let file = LocalSource {
                    local,
                    remote,
                    options,
                };
                transfers.add(file, size);
            }
            DirectedTransfers::Down(transfers) => {
                let level = BELOW_ROOT;
                let file = LocalTarget {
                    remote,
                    local,
                    level,
                    listed: None,
                };
                transfers.add(file, size);
            }
        }
    }

    /// Whether [`start`](Self::start) would send anything now.
    pub(crate) fn can_start(&self) -> bool {
        match &self.transfers {
            DirectedTransfers::Up(transfers) => transfers.can_start(),
            DirectedTransfers::Down(transfers) => transfers.can_start(),
        }
    }

    /// Sends the small files that were added. Returns those that failed at once.
    pub(crate) fn start(&mut self) -> Vec<TransferResult> {
        match &mut self.transfers {
            DirectedTransfers::Up(transfers) => {
                let finished = transfers.start().into_iter();
                let result = finished.map(|(file, result)| (file.remote, result.map(|r| r.size)));
                relative_results(&self.context, result)
            }
            DirectedTransfers::Down(transfers) => {
                let finished = transfers.start().into_iter();
                let result = finished.map(|(file, result)| (file.remote, result.map(|r| r.size)));
                relative_results(&self.context, result)
            }
        }
    }

    /// Resolves once files are finished, or capacity may have changed. Pending while idle. Cancel-safe.
    ///
    /// # Errors
    /// Only if the runtime is shutting down.
    pub(crate) async fn next(&mut self) -> Result<Vec<TransferResult>, ClientError> {
        Ok(match &mut self.transfers {
            DirectedTransfers::Up(transfers) => {
                let finished = transfers.next().await?.into_iter();
                let result = finished.map(|(file, result)| (file.remote, result.map(|r| r.size)));
                relative_results(&self.context, result)
            }
            DirectedTransfers::Down(transfers) => {
                let finished = transfers.next().await?.into_iter();
                let result = finished.map(|(file, result)| (file.remote, result.map(|r| r.size)));
                relative_results(&self.context, result)
            }
        })
    }
}

fn relative_results(
    context: &SyncContext,
    results: impl Iterator<Item = TransferResult>,
) -> Vec<TransferResult> {
    results
        .map(|(remote, result)| (context.relative(&remote), result))
        .collect()
}

fn file_options(context: &SyncContext, replaces_file: bool) -> FileOptions {
    let may_use_deltas = !context.options.whole_files && replaces_file;
    FileOptions {
        if_exists: Some(IfExists::Replace),
        algorithm: context.options.algorithm,
        // The request for the directory may arrive after that of a file in it.
        parents: true,
        deltas: may_use_deltas && context.session.client().has_feature("deltas"),
    }
}

//! What a sync is asked for, and what it reports.

use std::path::PathBuf;

use crate::client::ClientError;
use crate::client::sync::action::SyncAction;
use crate::client::sync::filter::FilterOptions;
use crate::client::sync::rules::SyncRules;
use crate::client::sync::scan::LinkPolicy;
use crate::protocol::Algorithm;

/// Large files that are transferred at the same time, if nothing else is said.
pub const DEFAULT_SYNC_JOBS: usize = 32;

/// The side that is made equal to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncDirection {
    /// The server becomes equal to the local tree.
    Up,
    /// The local tree becomes equal to that of the server.
    Down,
}

/// A sync of a local and a remote directory. The content of one becomes the content of the other.
#[derive(Debug, Clone)]
pub struct SyncJob {
    /// Which side changes.
    pub direction: SyncDirection,
    /// The local directory.
    pub local: PathBuf,
    /// The directory on the server.
    pub remote: String,
    /// How.
    pub options: SyncOptions,
}

/// How a sync works.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// What is compared, created, replaced and deleted.
    pub rules: SyncRules,
    /// What takes part.
    pub filter: FilterOptions,
    /// What happens to symbolic links of a local source. Those of a local destination are kept.
    pub links: LinkPolicy,
    /// Do not enter other file systems of a local source.
    pub one_file_system: bool,
    /// Delete nothing if more than this would be deleted.
    pub max_deletions: Option<u64>,
    /// A directory on the changed side that receives what would be deleted.
    pub backup_directory: Option<String>,
    /// Only plan.
    pub dry_run: bool,
    /// Large files that are transferred at the same time.
    pub jobs: usize,
    /// The digest of the transfers, and of comparisons for which the server keeps none.
    pub algorithm: Algorithm,
    /// Transfer changed files whole, even if the server can transfer their changes.
    pub whole_files: bool,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            rules: SyncRules {
                modes: true,
                ..SyncRules::default()
            },
            filter: FilterOptions::default(),
            links: LinkPolicy::default(),
            one_file_system: false,
            max_deletions: None,
            backup_directory: None,
            dry_run: false,
            jobs: DEFAULT_SYNC_JOBS,
            algorithm: Algorithm::default(),
            whole_files: false,
        }
    }
}

/// A report of a sync, as it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum SyncOutcome {
    /// An action was completed; in a dry run, it is planned.
    Done(SyncAction),
    /// An action failed; the others go on.
    Failed {
        /// The path, relative to the roots.
        path: String,
        /// Why.
        error: ClientError,
    },
    /// So many deletions, and what they make room for, were left out.
    DeletionsLeftOut {
        /// How many.
        count: u64,
        /// Why.
        reason: DeletionsLeftOut,
    },
}

/// Why a sync deletes nothing although it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeletionsLeftOut {
    /// A transfer failed, or a part of the source could not be read.
    #[error("not everything could be read and transferred")]
    AfterFailure,
    /// There are more than `--max-delete` allows.
    #[error("they are more than --max-delete allows")]
    TooMany,
}

/// The totals of a sync; in a dry run, of what is planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SyncSummary {
    /// Files transferred.
    pub transferred: u64,
    /// Their bytes, [`delta_saved_bytes`](Self::delta_saved_bytes) included.
    pub transferred_bytes: u64,
    /// Bytes of transferred files that the destination had in the files that they replace.
    pub delta_saved_bytes: u64,
    /// Files moved or copied at the destination.
    pub renamed: u64,
    /// Their bytes, which were not transferred.
    pub renamed_bytes: u64,
    /// Files of equal content.
    pub unchanged: u64,
    /// Their bytes.
    pub unchanged_bytes: u64,
    /// Directories made.
    pub directories: u64,
    /// Entries of which only metadata were set.
    pub metadata: u64,
    /// Entries deleted, or moved to the backup directory.
    pub deleted: u64,
    /// Paths that were left as they are, excluded ones not counted.
    pub skipped: u64,
    /// Paths that failed.
    pub failed: u64,
}

impl SyncSummary {
    /// Bytes of transferred files that crossed the network.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.transferred_bytes
            .saturating_sub(self.delta_saved_bytes)
    }

    /// Bytes of the source that did not have to be transferred.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.unchanged_bytes + self.renamed_bytes + self.delta_saved_bytes
    }
}

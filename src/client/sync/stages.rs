//! The stages after the transfers: renames, deletions, replacements and metadata of directories.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::stream::{self, StreamExt};

use crate::client::ClientError;
use crate::client::sync::action::SyncAction;
use crate::client::sync::digests::{MAX_CONCURRENT_DIGESTS, local_digest, remote_digest};
use crate::client::sync::entry::SyncEntry;
use crate::client::sync::job::{DeletionsLeftOut, SyncDirection, SyncOutcome};
use crate::client::sync::renames::{Rename, SurplusFile, match_renames, rename_candidates};
use crate::client::sync::rules::TransferReason;
use crate::client::sync::run::SyncRun;
use crate::client::sync::staged::{discard, publish};
use crate::client::sync::staged_paths::{StagedPaths, replacement_roots};
use crate::protocol::{Digest, Kind};

/// Deferred deletions that become actions at a time.
const MAX_QUEUED_DELETIONS: usize = 4096;

impl SyncRun {
    /// Moves or copies surplus files that equal new ones, and queues the transfers of the others.
    pub(crate) async fn detect_renames(&mut self) -> Result<(), ClientError> {
        let mut new_files: Vec<_> = std::mem::take(&mut self.deferred.new_files)
            .into_iter()
            .map(Some)
            .collect();
        let renames = self.find_renames(&new_files).await;
        let options = &self.context.options;
        // A move deletes the old name, which counts, and leaves nothing to be moved to a backup.
        let may_move = options.rules.delete
            && !self.is_incomplete
            && options.backup_directory.is_none()
            && options
                .max_deletions
                .is_none_or(|max| self.deferred.deletions() <= max);
        let is_move = |rename: &&Rename| may_move && rename.is_last_use;
        let moves: Vec<_> = renames.iter().filter(is_move).copied().collect();
        for rename in renames.iter().filter(|rename| !is_move(rename)) {
            if let Some(entry) = new_files[rename.new].take() {
                let from = self.deferred.surplus[rename.surplus].path.to_string();
                self.enqueue(SyncAction::Copy { from, entry });
            }
        }
        let used: BTreeSet<_> = moves.iter().map(|rename| rename.surplus).collect();
        let waiting: Vec<_> = moves
            .iter()
            .filter_map(|rename| {
                let from = self.deferred.surplus[rename.surplus].path.to_string();
                Some((from, new_files[rename.new].take()?))
            })
            .collect();
        let mut index = 0;
        self.deferred.surplus.retain(|_| {
            index += 1;
            !used.contains(&(index - 1))
        });
        for entry in new_files.into_iter().flatten() {
            self.enqueue(SyncAction::Transfer {
                entry,
                replaces: None,
                reason: TransferReason::New,
            });
        }
        // A file is copied before it is moved, and no old name goes before the transfers have succeeded.
        self.run_queue().await?;
        for (from, entry) in waiting {
            self.enqueue(if self.is_incomplete {
                SyncAction::Copy { from, entry }
            } else {
                SyncAction::Move { from, entry }
            });
        }
        Ok(())
    }

    async fn find_renames(&self, new_files: &[Option<SyncEntry>]) -> Vec<Rename> {
        let new_entries: Vec<_> = new_files.iter().flatten().collect();
        let surplus = &self.deferred.surplus;
        let candidates = rename_candidates(&new_entries, surplus);
        let new_paths = candidates
            .keys()
            .map(|&index| (index, new_entries[index].path.as_str()));
        let surplus_indices: BTreeSet<_> = candidates.values().flatten().copied().collect();
        let surplus_paths = surplus_indices
            .into_iter()
            .map(|index| (index, &*surplus[index].path));
        let (local, remote) = match self.context.direction {
            SyncDirection::Up => (true, false),
            SyncDirection::Down => (false, true),
        };
        let new_digests = self.digests(new_paths, local).await;
        let surplus_digests = self.digests(surplus_paths, remote).await;
        match_renames(
            &candidates,
            |index| new_digests.get(&index).copied(),
            |index| surplus_digests.get(&index).copied(),
        )
    }

    /// The digests of files of one side, by their indices. Those that cannot be computed are absent.
    async fn digests<'a>(
        &self,
        files: impl Iterator<Item = (usize, &'a str)>,
        is_local: bool,
    ) -> HashMap<usize, Digest> {
        let context = &self.context;
        let algorithm = context.options.algorithm;
        stream::iter(files)
            .map(|(index, path)| async move {
                let digest = if is_local {
                    local_digest(context, path, algorithm).await
                } else {
                    remote_digest(context, path).await
                };
                digest.map(|digest| (index, digest))
            })
            .buffer_unordered(MAX_CONCURRENT_DIGESTS)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Deletes what the source does not have, and replaces entries by those of another kind, unless
    /// something failed or it is too much.
    pub(crate) async fn delete_and_replace(&mut self) -> Result<(), ClientError> {
        let count = self.deferred.deletions();
        let replacements = std::mem::take(&mut self.deferred.replacements);
        if count == 0 && replacements.is_empty() {
            return Ok(());
        }
        let replaced = replacement_roots(&replacements);
        let max = self.context.options.max_deletions;
        if !self.is_incomplete && max.is_some_and(|max| count > max) {
            self.leave_out(count, DeletionsLeftOut::TooMany, &replaced)
                .await;
            return Ok(());
        }
        let staged = StagedPaths::choose(replaced)?;
        if !self.is_incomplete {
            self.stage(&staged, replacements).await?;
        }
        if self.is_incomplete {
            for path in staged.paths() {
                discard(&self.context, &path).await;
            }
            let reason = DeletionsLeftOut::AfterFailure;
            self.leave_out(count, reason, staged.roots()).await;
            return Ok(());
        }
        self.delete().await?;
        if self.context.options.dry_run {
            return Ok(());
        }
        self.publish(&staged).await
    }

    async fn leave_out(&mut self, count: u64, reason: DeletionsLeftOut, replaced: &[String]) {
        for path in replaced {
            self.deferred.forget_directories(path);
        }
        self.summary.failed += 1;
        self.report(SyncOutcome::DeletionsLeftOut { count, reason })
            .await;
    }

    /// Makes what replaces entries of another kind beside them.
    async fn stage(
        &mut self,
        staged: &Arc<StagedPaths>,
        replacements: Vec<SyncAction>,
    ) -> Result<(), ClientError> {
        *self.context.staged.write() = Some(Arc::clone(staged));
        for action in replacements {
            self.enqueue(action);
        }
        let outcome = self.run_queue().await;
        *self.context.staged.write() = None;
        outcome
    }

    /// Deletes surplus files, and then surplus directories, the deepest first.
    async fn delete(&mut self) -> Result<(), ClientError> {
        let files = self.deferred.take_surplus_files();
        for files in files.chunks(MAX_QUEUED_DELETIONS) {
            for file in files {
                self.enqueue(SyncAction::Delete(deleted_file(file)));
            }
            self.run_queue().await?;
        }
        while let Some(directories) = self.deferred.take_surplus_directories() {
            for path in directories {
                self.enqueue(SyncAction::Delete(deleted_directory(path)));
            }
            self.run_queue().await?;
        }
        Ok(())
    }

    /// Gives what was made beside other entries their names.
    async fn publish(&mut self, staged: &StagedPaths) -> Result<(), ClientError> {
        for (path, temporary) in staged.roots().iter().zip(staged.paths()) {
            let Err(error) = publish(&self.context, &temporary, path).await else {
                continue;
            };
            if error.ends_everything() {
                return Err(error);
            }
            discard(&self.context, &temporary).await;
            self.deferred.forget_directories(path);
            self.is_incomplete = true;
            self.summary.failed += 1;
            let path = path.clone();
            self.report(SyncOutcome::Failed { path, error }).await;
        }
        Ok(())
    }

    /// Sets the metadata of directories, which the other stages change.
    pub(crate) async fn set_directory_metadata(&mut self) -> Result<(), ClientError> {
        for action in std::mem::take(&mut self.deferred.directories) {
            self.enqueue(action);
        }
        self.run_queue().await
    }
}

fn deleted_file(file: &SurplusFile) -> SyncEntry {
    SyncEntry {
        path: file.path.to_string(),
        kind: Kind::File,
        size: file.size,
        modified: file.modified,
        mode: None,
        version: None,
        digest: None,
    }
}

fn deleted_directory(path: Box<str>) -> SyncEntry {
    SyncEntry {
        path: path.into(),
        kind: Kind::Dir,
        size: 0,
        modified: jiff::Timestamp::UNIX_EPOCH,
        mode: None,
        version: None,
        digest: None,
    }
}

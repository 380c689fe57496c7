//! `haul backup`: a copy of the data directory that a server can start on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::accounts;
use crate::accounts::{Owners, UNFINISHED_BACKUP};
use crate::cli::data::DataDirArgs;
use crate::cli::exit::{NotAtRest, Reported};
use crate::cli::output::{Output, count, size};
use crate::cli::progress::Bar;
use crate::client::Progress;
use crate::io_error::describe_io_error;
use crate::messages;
use crate::storage;
use crate::storage::BackupOutcome;

/// Back up the data directory of a server, which may run meanwhile
///
/// The backup is a data directory. To restore it, start `haul serve --data` on it or on a copy of it.
/// It contains the accounts, the messages, the server's own certificate, and all files of users and
/// shared folders with their times and digests. It does not contain files of removed users,
/// interrupted uploads, the configuration, or files outside the data directory.
///
/// Every file that exists from the start to the end of the backup is in it. Of a file that changes
/// meanwhile, the backup has either the old or the new content. Only the user who makes the backup
/// can read it.
///
/// The exit code is 0 if the backup is complete, 1 if a file could not be read, and 4 if files changed
/// during each pass, so a file that was moved may be missing.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    data: DataDirArgs,
    /// The directory for the backup, new or empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// The result of a backup, as `--json` shows it.
#[derive(Debug, Default, Serialize)]
struct BackupResult {
    path: PathBuf,
    users: usize,
    folders: usize,
    files: u64,
    bytes: u64,
    /// The files that could not be read.
    left_out: u64,
    /// Files that changed each time that they were copied.
    changing: u64,
    /// Whether nothing changed in the last pass and no user or folder was added: nothing that was
    /// moved can be missing.
    at_rest: bool,
    ms: u64,
}

/// The state that the copying thread and the progress bar share.
#[derive(Debug, Default)]
struct BackupProgress {
    left_out: AtomicU64,
    changing: AtomicU64,
    stop: AtomicBool,
}

impl BackupArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let started = Instant::now();
        let data = self.data.with_accounts()?;
        let to = self.directory;
        let failed = || format!("cannot make a backup in {}", to.display());
        let backup = storage::Backup::begin(&data, &to).with_context(failed)?;
        // In this order: whoever is named in the messages is known to the accounts, so that a number
        // is not given to another user later.
        if data.join("messages.db").exists() {
            let copied = messages::copy(&data, &to.join("messages.db")).await;
            copied.with_context(failed)?;
        }
        let copied = accounts::copy(&data, &to.join(UNFINISHED_BACKUP)).await;
        copied.with_context(failed)?;
        let owners = Owners::read(&to.join(UNFINISHED_BACKUP)).await;
        let owners = owners.with_context(failed)?;
        let progress = Progress::new();
        let bar = Bar::new(output, &progress);
        let shared = Arc::new(BackupProgress::default());
        let stop = StopAtEnd(Arc::clone(&shared));
        let copying = copy(backup, owners.clone(), &bar, &progress, shared.clone());
        let (backup, copied) = bar.during(copying).await.with_context(failed)?;
        // Files of users who were removed meanwhile are left out: another user may have their name by now.
        let now = Owners::read(&data.join("haul.db")).await?;
        // Files that were moved to users who were added meanwhile are not in the backup.
        let at_rest = copied == BackupOutcome::Complete && missing(&now, &owners).is_empty();
        let finishing = spawn_blocking(move || {
            for space in missing(&owners, &now) {
                backup.remove(&space)?;
            }
            backup.finish(UNFINISHED_BACKUP, "haul.db")?;
            Ok::<_, std::io::Error>(owners)
        });
        let owners = finishing.await?.with_context(failed)?;
        drop(stop);
        let done = BackupResult {
            users: owners.users.len(),
            folders: owners.folders.len(),
            files: progress.files(),
            bytes: progress.bytes(),
            left_out: shared.left_out.load(Ordering::Relaxed),
            changing: shared.changing.load(Ordering::Relaxed),
            at_rest,
            ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            path: to,
        };
        output.result(&done, text)?;
        done.check_complete()
    }
}

impl BackupResult {
    fn check_complete(&self) -> anyhow::Result<()> {
        if self.left_out > 0 {
            return Err(Reported.into());
        }
        if !self.at_rest {
            return Err(NotAtRest.into());
        }
        Ok(())
    }
}

/// Copies the files of all `owners`, and the certificate, on a thread.
async fn copy(
    backup: storage::Backup,
    owners: Owners,
    bar: &Bar,
    progress: &Progress,
    shared: Arc<BackupProgress>,
) -> anyhow::Result<(storage::Backup, BackupOutcome)> {
    let (bar, progress) = (bar.clone(), progress.clone());
    let copying = spawn_blocking(move || {
        let mut watcher = |step: storage::BackupStep| {
            match step {
                storage::BackupStep::File(bytes) => progress.found_file(bytes),
                storage::BackupStep::Bytes(bytes) => progress.moved(bytes),
                storage::BackupStep::Done => progress.finished_file(),
                storage::BackupStep::LeftOut(path, error) => {
                    shared.left_out.fetch_add(1, Ordering::Relaxed);
                    let why = describe_io_error(&error);
                    bar.print(&format!("cannot back up {}: {why}", path.display()));
                }
                storage::BackupStep::Changing(path) => {
                    shared.changing.fetch_add(1, Ordering::Relaxed);
                    let path = path.display();
                    bar.print(&format!("{path} changed during each copy of it"));
                }
            }
            !shared.stop.load(Ordering::Relaxed)
        };
        let tls = std::iter::once(PathBuf::from("tls"));
        let all: Vec<_> = tls.chain(spaces(&owners)).collect();
        let copied = backup.copy(&all, &mut watcher)?;
        Ok::<_, std::io::Error>((backup, copied))
    });
    Ok(copying.await??)
}

/// Ends the thread that copies when it is dropped: with the command, when that is interrupted.
struct StopAtEnd(Arc<BackupProgress>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Where the files of `owners` are in the data directory.
fn spaces(owners: &Owners) -> impl Iterator<Item = PathBuf> {
    let homes = owners
        .users
        .keys()
        .map(|name| Path::new("homes").join(name));
    let folders = owners.folders.keys();
    homes.chain(folders.map(|name| Path::new("folders").join(name)))
}

/// The files of those in `all` who are missing in `some`, even if others have their names there.
fn missing(all: &Owners, some: &Owners) -> Vec<PathBuf> {
    let missing = Owners {
        users: without(&all.users, &some.users),
        folders: without(&all.folders, &some.folders),
    };
    spaces(&missing).collect()
}

fn without(all: &BTreeMap<String, i64>, some: &BTreeMap<String, i64>) -> BTreeMap<String, i64> {
    let missing = all.iter().filter(|(name, id)| some.get(*name) != Some(id));
    missing.map(|(name, id)| (name.clone(), *id)).collect()
}

fn text(done: &BackupResult) -> String {
    let counted = |number: usize, noun| count(number as u64, noun);
    format!(
        "backed up {}, {} and {} ({}) to {}",
        counted(done.users, "user"),
        counted(done.folders, "folder"),
        count(done.files, "file"),
        size(done.bytes),
        done.path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_lacks_something_does_not_end_as_one_that_is_complete() {
        let done = |left_out, at_rest| BackupResult {
            left_out,
            at_rest,
            ..BackupResult::default()
        };
        done(0, true).check_complete().expect("complete");
        let error = done(0, false).check_complete().expect_err("not at rest");
        assert!(error.is::<NotAtRest>(), "{error}");
        for at_rest in [true, false] {
            let error = done(1, at_rest).check_complete().expect_err("left out");
            assert!(error.is::<Reported>(), "{error}");
        }
    }

    #[test]
    fn files_go_with_the_account_and_not_with_its_name() {
        let owners = |users: &[(&str, i64)]| Owners {
            users: users
                .iter()
                .map(|(name, id)| ((*name).into(), *id))
                .collect(),
            folders: [("team".into(), 1)].into(),
        };
        let before = owners(&[("alice", 1), ("bob", 2), ("carol", 3)]);
        let now = owners(&[("alice", 1), ("bob", 4), ("dave", 5)]);
        let gone = missing(&before, &now);
        assert_eq!(gone, [Path::new("homes/bob"), Path::new("homes/carol")]);
        let added = missing(&now, &before);
        assert_eq!(added, [Path::new("homes/bob"), Path::new("homes/dave")]);
    }
}

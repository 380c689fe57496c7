//! `haul sync`

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use crate::cli::exit::{Reported, unfinished, usage};
use crate::cli::progress::Bar;
use crate::cli::remote_path::{is_marked_remote, without_mark};
use crate::cli::remote_session::RemoteSession;
use crate::cli::space_message::with_space_explained;
use crate::cli::sync_report::SyncReport;
use crate::cli::sync_watch::SourceWatch;
use crate::cli::transfer::{BandwidthOptions, RetryOptions, algorithm, byte_size};
use crate::client::sync::{
    Comparison, DEFAULT_SYNC_JOBS, FilterOptions, LinkPolicy, SyncDirection, SyncJob, SyncOptions,
    SyncRules,
};
use crate::client::{Progress, RetryPolicy};
use crate::protocol::Algorithm;

/// Reports that are not printed yet.
const MAX_WAITING_EVENTS: usize = 256;

/// Make a directory equal to another, transferring only what differs
///
/// One of SOURCE and DESTINATION is local, the other is on the server and marked by a colon:
/// `sync ./site :/www` makes /www on the server equal to ./site, `sync :/team ./team` makes ./team equal to
/// /team. The content of SOURCE becomes the content of DESTINATION, with or without a slash at the end.
/// DESTINATION is made if it does not exist.
///
/// Files of equal size and modification time are equal; `--checksum` compares their digests.
/// Of a changed file of more than 4 MiB only the changed parts are transferred, unless `--whole-file` is given.
/// Modification times and permission bits are kept. A file that only DESTINATION has stays, unless
/// `--delete` is given. A new file whose content DESTINATION has under another name that SOURCE does not
/// have is renamed or copied there.
///
/// Filters have the syntax of .gitignore. Files named `.haulignore` in the local directory add patterns for
/// the directory that they are in. What a filter excludes is neither transferred nor deleted.
///
/// Each file appears once it is complete. The same command continues a run that was interrupted.
/// The exit code is 0 if DESTINATION is as it should be, and 1 if something failed, which is listed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct SyncArgs {
    /// The directory whose content is transferred
    source: String,
    /// The directory that becomes equal to it
    destination: String,
    /// Print what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Print every action
    #[arg(long, short)]
    itemize: bool,
    /// Delete what SOURCE does not have, after all transfers have succeeded
    #[arg(long)]
    delete: bool,
    /// Delete nothing if more than N files and directories would be deleted
    #[arg(long, value_name = "N", requires = "delete")]
    max_delete: Option<u64>,
    /// Keep replaced and deleted files in DIR, on the side of DESTINATION and without a colon
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<String>,
    /// Compare files of equal size by digest
    #[arg(long, short, conflicts_with = "size_only")]
    checksum: bool,
    /// Compare files by size alone
    #[arg(long)]
    size_only: bool,
    /// Keep files that are newer at DESTINATION
    #[arg(long, short)]
    update: bool,
    /// Create nothing at DESTINATION, only replace
    #[arg(long)]
    existing: bool,
    /// Replace nothing at DESTINATION, only create
    #[arg(long)]
    ignore_existing: bool,
    /// Exclude paths that match
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Include paths that match although an exclude pattern does
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Exclude paths that match a pattern in this file
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<PathBuf>,
    /// Exclude larger files, such as `100MB`
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    max_size: Option<ByteSize>,
    /// Exclude smaller files
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    min_size: Option<ByteSize>,
    /// The handling of symbolic links in a local SOURCE
    #[arg(long, value_enum, default_value = "skip")]
    links: LinksChoice,
    /// Do not enter other file systems in a local SOURCE
    #[arg(long, short = 'x')]
    one_file_system: bool,
    /// Transfer changed files whole, not only the parts that changed
    #[arg(long, short = 'W')]
    whole_file: bool,
    /// Transfer at most N large files at the same time
    #[arg(long, short, value_name = "N", default_value_t = DEFAULT_SYNC_JOBS as u64,
        value_parser = clap::value_parser!(u64).range(1..=DEFAULT_SYNC_JOBS as u64))]
    jobs: u64,
    /// The digest to compare: blake3, sha256 or md5
    #[arg(long, default_value = "blake3", value_name = "NAME", value_parser = algorithm)]
    digest: Algorithm,
    /// Repeat the sync whenever SOURCE changes, until Ctrl-C
    #[arg(long, conflicts_with = "dry_run")]
    watch: bool,
    #[command(flatten)]
    bandwidth: BandwidthOptions,
    #[command(flatten)]
    retries: RetryOptions,
}

/// `--links`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LinksChoice {
    /// Report them and go on
    Skip,
    /// Transfer what they lead to
    Follow,
}

impl SyncArgs {
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        if self.watch {
            RetryPolicy::FOR_EVER
        } else {
            self.retries.policy()
        }
    }

    /// Whether it needs the events of the server.
    pub(super) fn watches(&self) -> bool {
        self.watch && is_marked_remote(&self.source)
    }

    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        self.bandwidth.apply(&remote.session);
        let job = self.job()?;
        if !self.watch {
            let is_complete = self.sync(remote, job).await?;
            return if is_complete {
                Ok(())
            } else {
                Err(Reported.into())
            };
        }
        let mut watch = SourceWatch::begin(remote, &job).await?;
        loop {
            let run = Box::pin(self.sync(remote, job.clone()));
            let (result, has_changed) = watch.during(run).await?;
            // Each failed path was reported, and the next run tries it again.
            let _is_complete = result?;
            if !has_changed {
                watch.changed(remote).await?;
            }
        }
    }

    /// One run. `false` if paths failed, which were reported.
    async fn sync(&self, remote: &RemoteSession, job: SyncJob) -> anyhow::Result<bool> {
        let report = SyncReport {
            output: remote.output,
            direction: job.direction,
            itemize: self.itemize,
            dry_run: self.dry_run,
        };
        let progress = Progress::new();
        let bar = Bar::new(remote.output, &progress);
        let (sender, mut events) = mpsc::channel(MAX_WAITING_EVENTS);
        let started = Instant::now();
        let session = &remote.session;
        let shown = &bar;
        // An error of the job is a result here: what was reported before it is printed first.
        let work = async { anyhow::Ok(session.sync(job, &progress, sender).await) };
        let listen = async move {
            while let Some(event) = events.recv().await {
                report.event(shown, event)?;
            }
            anyhow::Ok(())
        };
        let both = async { tokio::try_join!(work, listen) };
        let (summary, ()) = bar.during(Box::pin(both)).await.map_err(unfinished)?;
        let summary = match summary {
            Ok(summary) => summary,
            Err(error) => return Err(with_space_explained(remote, None, error.into()).await),
        };
        report.summary(&summary, started.elapsed())?;
        Ok(summary.failed == 0)
    }

    fn job(&self) -> anyhow::Result<SyncJob> {
        let marked = (
            is_marked_remote(&self.source),
            is_marked_remote(&self.destination),
        );
        let (direction, local, remote) = match marked {
            (false, true) => (SyncDirection::Up, &self.source, &self.destination),
            (true, false) => (SyncDirection::Down, &self.destination, &self.source),
            (false, false)
                if [&self.source, &self.destination]
                    .into_iter()
                    .any(is_host_path) =>
            {
                return Err(usage(
                    "a path on the server has no host, only a leading colon, as in `:/path`; \
                     choose the server with `--server haul://user@host` or a profile",
                ));
            }
            (false, false) => {
                return Err(usage(
                    "no path is marked as one on the server; write `haul sync DIR :DIR` to send \
                     a directory, or `haul sync :DIR DIR` to receive one",
                ));
            }
            (true, true) => {
                return Err(usage(
                    "both paths are marked as paths on the server, and one of them must be local; \
                     `haul cp` copies on the server",
                ));
            }
        };
        if local.is_empty() {
            return Err(usage(
                "the local directory has no name; the current one is `.`",
            ));
        }
        Ok(SyncJob {
            direction,
            local: PathBuf::from(local),
            remote: without_mark(remote).to_owned(),
            options: self.options(),
        })
    }

    fn options(&self) -> SyncOptions {
        let comparison = if self.checksum {
            Comparison::Checksum
        } else if self.size_only {
            Comparison::SizeOnly
        } else {
            Comparison::Time
        };
        SyncOptions {
            rules: SyncRules {
                comparison,
                update: self.update,
                existing: self.existing,
                ignore_existing: self.ignore_existing,
                delete: self.delete,
                modes: true,
            },
            filter: FilterOptions {
                exclude_from: self.exclude_from.clone(),
                exclude: self.exclude.clone(),
                include: self.include.clone(),
                max_size: self.max_size.map(|size| size.as_u64()),
                min_size: self.min_size.map(|size| size.as_u64()),
            },
            links: match self.links {
                LinksChoice::Skip => LinkPolicy::Skip,
                LinksChoice::Follow => LinkPolicy::Follow,
            },
            one_file_system: self.one_file_system,
            max_deletions: self.max_delete,
            backup_directory: self
                .backup_dir
                .as_deref()
                .map(|path| without_mark(path).to_owned()),
            dry_run: self.dry_run,
            jobs: usize::try_from(self.jobs).unwrap_or(DEFAULT_SYNC_JOBS),
            algorithm: self.digest,
            whole_files: self.whole_file,
        }
    }
}

/// Whether a path is written as for scp and rsync, with the host, or as the address of a server.
fn is_host_path(path: &String) -> bool {
    let host = path.split_once(':').map(|(host, _)| host);
    host.is_some_and(|host| !host.is_empty() && !host.contains('/')) && !Path::new(path).exists()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct SyncCommand {
        #[command(flatten)]
        args: SyncArgs,
    }

    fn job(words: &[&str]) -> anyhow::Result<SyncJob> {
        let words = std::iter::once("sync").chain(words.iter().copied());
        SyncCommand::try_parse_from(words)?.args.job()
    }

    #[test]
    fn the_colon_tells_the_direction() {
        let up = job(&["site/", ":/www"]).expect("meant");
        assert_eq!(up.direction, SyncDirection::Up);
        assert_eq!((up.local, &*up.remote), (PathBuf::from("site/"), "/www"));
        let down = job(&[":", "."]).expect("meant");
        assert_eq!(down.direction, SyncDirection::Down);
        assert_eq!((down.local, &*down.remote), (PathBuf::from("."), "."));
        assert!(job(&["a", "b"]).is_err() && job(&[":a", ":b"]).is_err());
    }

    #[test]
    fn sizes_have_units_and_deletion_options_need_delete() {
        let bounded = job(&["a", ":b", "--max-size", "2MB"]).expect("meant");
        assert_eq!(bounded.options.filter.max_size, Some(2_000_000));
        assert!(job(&["a", ":b", "--max-size", "12x"]).is_err());
        assert!(job(&["a", ":b", "--max-delete", "1"]).is_err());
        assert!(job(&["a", ":b", "--backup-dir", "old"]).is_ok());
    }

    #[test]
    fn a_path_with_a_host_is_explained() {
        for source in ["alice@files:/a", "files:a", "haul://alice@files/a"] {
            let error = job(&[source, "b"]).expect_err("no host");
            assert!(error.to_string().contains("no host"), "{error}");
        }
        let error = job(&["./files:a", "b"]).expect_err("both local");
        assert!(error.to_string().contains("no path is marked"), "{error}");
    }
}

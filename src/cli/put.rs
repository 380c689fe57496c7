//! `haul put`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use crate::cli::exit::usage;
use crate::cli::output::print_json;
use crate::cli::progress::Bar;
use crate::cli::remote_path::{is_marked_remote, last_name, without_mark};
use crate::cli::remote_session::RemoteSession;
use crate::cli::space_message::with_space_explained;
use crate::cli::transfer::{
    BandwidthOptions, ReportOptions, RetryOptions, TransferIfExists, TransferTarget, algorithm,
    all_differ, follow, named_directory, only_name, place, remote_target, without_content_marks,
};
use crate::client::{FileOptions, FollowedLinks, Progress, RetryPolicy, TreeOptions};
use crate::protocol::{Algorithm, ErrorCode};

/// Upload files and directories
///
/// A slash at the end of a source means its content: `put site/ web` makes web hold the files of site, again and
/// again with the same result. So does `-T`: `put -T site web`. Without either, a second `put site web` makes
/// web/site, because then web exists, as with cp.
///
/// A single path is uploaded to the current directory on the server under its own name. `-t DIR`
/// uploads any number of paths to the directory DIR on the server, which is created if it is missing.
///
/// Without `-t`, the last of several paths is REMOTE, a path on the server. If it is an existing
/// directory or ends with a slash, the others go into it under their own names. Otherwise it is the
/// new name of the only other path. A colon marks a path on the server: `put a.jpg :b.jpg` uploads
/// a.jpg as b.jpg. Without the colon, a REMOTE that exists on this machine is refused, because
/// `put *.jpg` would otherwise replace the last picture by the first; use `put -t . *.jpg`. A local
/// name that begins with a colon is written `./:name`. `-` as LOCAL uploads standard input.
///
/// A file appears on the server when it is complete and safe on the disk. After a lost connection the
/// transfer is resumed; an interrupted command is resumed by running it again. Existing directories
/// are merged. A file of the same name on the server is replaced, unless `--if-exists` says
/// otherwise. A file of a directory that the server has already, with the same size, time, permission bits
/// and digest, is not sent again, unless `--if-exists replace` says so.
///
/// Times and permission bits are kept. Links, owners and holes of files are not kept, and are counted in the
/// summary. A link to an entry of the tree is sent as the file or directory that it leads to; a link out of
/// the tree is skipped, unless `--follow` is given. `put /` stays on its file system. A file that grows
/// meanwhile is sent up to where it ended at the start.
#[derive(Debug, Args)]
#[command(override_usage = "haul put [OPTIONS] LOCAL… [REMOTE]")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent flags of a command line"
)]
pub(super) struct PutArgs {
    /// The files and directories to upload; the last of several is the target
    #[arg(required = true, value_name = "PATH", num_args = 1..)]
    paths: Vec<String>,
    /// Upload everything to the directory DIR on the server, created if it is missing
    #[arg(long, short = 't', value_name = "DIR")]
    to: Option<String>,
    /// The action if a file of that name exists on the server
    #[arg(long, value_enum)]
    if_exists: Option<TransferIfExists>,
    /// Use REMOTE as the name of the only source, even if it is a directory
    #[arg(long, short = 'T', conflicts_with = "to")]
    no_target_directory: bool,
    /// Follow links that lead out of the tree
    #[arg(long, short = 'L', hide_short_help = true)]
    follow: bool,
    /// Do not enter other file systems
    #[arg(long, short = 'x', hide_short_help = true)]
    one_file_system: bool,
    /// Create missing parent directories
    #[arg(long, short, hide_short_help = true)]
    parents: bool,
    /// The digest to compare: blake3, sha256 or md5
    #[arg(long, default_value = "blake3", value_name = "NAME", value_parser = algorithm)]
    digest: Algorithm,
    /// Print the path of every file
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    bandwidth: BandwidthOptions,
    #[command(flatten)]
    retries: RetryOptions,
}

impl PutArgs {
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.retries.policy()
    }

    pub(super) async fn run(mut self, remote: &RemoteSession) -> anyhow::Result<()> {
        self.bandwidth.apply(&remote.session);
        let to = self.take_target()?;
        let if_exists = self.if_exists.unwrap_or(TransferIfExists::Replace);
        let options = FileOptions {
            if_exists: Some(if_exists.into()),
            algorithm: self.digest,
            // A slash at the end says that a directory is meant, there or not.
            parents: self.parents || to.ends_with('/'),
            deltas: false,
        };
        if self.reads_stdin() {
            return self.put_pipe(remote, &to, options).await;
        }
        let roots = self.roots(remote, &to).await?;
        let telling = ReportOptions {
            what: "put",
            verbose: self.verbose || if_exists == TransferIfExists::Rename,
        };
        let options = TreeOptions {
            file: options,
            skip_existing: if_exists == TransferIfExists::Skip,
            skip_unchanged: self.if_exists.is_none(),
            links: if self.follow {
                FollowedLinks::All
            } else {
                FollowedLinks::Inside
            },
            one_file_system: self.one_file_system,
        };
        let session = &remote.session;
        follow(remote, telling, |progress, notes| async move {
            session.put_trees(roots, options, &progress, notes).await
        })
        .await
    }

    /// Removes the target from the paths, of which then all are local.
    fn take_target(&mut self) -> anyhow::Result<String> {
        let target = match (&self.to, &*self.paths) {
            (Some(directory), _) => named_directory(without_mark(directory))?,
            (None, [_]) => {
                without_content_marks(&mut self.paths);
                ".".to_owned()
            }
            (None, _) => {
                let last = self.paths.pop().context("there are several")?;
                // Data from a pipe has no name.
                if self.paths != ["-"] && !self.no_target_directory {
                    refuse_local_target(&last)?;
                }
                without_mark(&last).to_owned()
            }
        };
        if target == "-" {
            return Err(usage(
                "`-` is standard input, which comes first: `haul put - NAME`; \
                 a file of that name on the server is ./-",
            ));
        }
        match self.paths.iter().find(|path| is_marked_remote(path)) {
            Some(path) => Err(usage(format!(
                "{path} is marked as a path on the server and cannot be put; \
                 a local file of that name is ./{path}"
            ))),
            None => Ok(target),
        }
    }

    /// Whether standard input is among what is put.
    pub(super) fn reads_stdin(&self) -> bool {
        self.paths.iter().any(|path| path == "-")
    }

    /// Each path with where it goes.
    async fn roots(
        &self,
        remote: &RemoteSession,
        to: &str,
    ) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let target = match &*self.paths {
            paths if self.no_target_directory => only_name(to, paths.len())?,
            _ if to == "." => TransferTarget::Directory,
            paths => remote_target(remote, to, paths.len()).await?,
        };
        let places: Vec<_> = self
            .paths
            .iter()
            .map(|path| place(to, path, target))
            .collect();
        all_differ(places.iter().map(String::as_str))?;
        let roots = self.paths.iter().map(PathBuf::from);
        Ok(roots.zip(places).collect())
    }

    async fn put_pipe(
        &self,
        remote: &RemoteSession,
        to: &str,
        options: FileOptions,
    ) -> anyhow::Result<()> {
        if self.paths.len() > 1 || last_name(to).is_none() || to.ends_with('/') {
            return Err(usage(
                "data from standard input needs a name: `haul put - NAME`",
            ));
        }
        let progress = Progress::new();
        let bar = Bar::new(remote.output, &progress);
        let stdin = std::io::stdin();
        let put = remote.session.put_from(stdin, to, options, &progress);
        let skips = self.if_exists == Some(TransferIfExists::Skip);
        let reply = match bar.during(put).await {
            Ok(reply) => reply,
            Err(error) if skips && error.code() == Some(ErrorCode::Exists) => {
                if remote.output.is_json() {
                    print_json(&json!({"path": to, "skipped": true}))?;
                } else {
                    remote.output.note(&format!("{to} is there already"));
                }
                return Ok(());
            }
            Err(error) => return Err(with_space_explained(remote, None, error.into()).await),
        };
        if remote.output.is_json() {
            print_json(&reply)?;
        } else {
            remote.output.note(&reply.path);
        }
        Ok(())
    }
}

/// Refuses a target on the server that could be meant as one more thing to put. `.` and the like
/// cannot: the shell makes no such names of a pattern.
fn refuse_local_target(target: &str) -> anyhow::Result<()> {
    let is_local = Path::new(target).symlink_metadata().is_ok();
    if is_marked_remote(target) || last_name(target).is_none() || !is_local {
        return Ok(());
    }
    Err(usage(format!(
        "the last path is the target on the server, but {target} exists on this machine; \
         to upload it too, name a directory on the server with `-t DIR` (`-t .` is the current \
         one); to use it as the target, write `:{target}`"
    )))
}

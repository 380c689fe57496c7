//! `haul get`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::exit::usage;
use crate::cli::expand::expand_names;
use crate::cli::failures::Failures;
use crate::cli::progress::Bar;
use crate::cli::remote_path::{is_marked_remote, without_mark};
use crate::cli::remote_session::RemoteSession;
use crate::cli::transfer::{
    BandwidthOptions, ReportOptions, RetryOptions, TransferIfExists, TransferTarget, algorithm,
    all_differ, follow, local_target, named_directory, only_name, place, without_content_marks,
};
use crate::cli::wildcards::unquoted;
use crate::client::{FileOptions, Progress, RetryPolicy, TreeOptions};
use crate::protocol::Algorithm;

/// Download files and directories
///
/// A slash at the end of a source means its content: `get site/ web` makes web hold the files of site, again and
/// again with the same result. So does `-T`: `get -T site web`. Without either, a second `get site web` makes
/// web/site, because then web exists, as with cp.
///
/// A single path is saved in the current directory under its own name. `-t DIR` saves any number of
/// paths in the local directory DIR, which is created if it is missing.
///
/// Without `-t`, the last of several paths is LOCAL. If it is an existing directory or ends with a
/// slash, the others are saved in it under their own names. Otherwise it is the new name of the only
/// other path. So `get a b` saves a as b, and `get -t . a b` saves both. A colon marks a path on the
/// server: `get :a :b` saves both, too. If both sides have a file `b`, `get a b` is refused as
/// ambiguous; `get a ./b` replaces the local file. `-` as LOCAL writes one file to standard output.
///
/// A path on the server may have the wildcards `*`, `?` and `[...]`; quote them from your shell. A
/// backslash before such a character makes it part of the name. A name that begins with a colon is
/// written `./:name`.
///
/// A file appears under its name when it is complete and its digest is that of the server. Until then
/// it is a file `.haul-….part` in the same directory. After a lost connection the transfer is
/// resumed. The same command resumes an interrupted file of 1 MiB or more within seven days, if it is
/// unchanged on the server. Existing directories are merged. A local file of the same name is replaced,
/// unless `--if-exists` says otherwise. A file of a directory that is here already, with the same size, time,
/// permission bits and digest, is not downloaded again, unless `--if-exists replace` says so. Times and
/// permission bits are kept.
#[derive(Debug, Args)]
#[command(override_usage = "haul get [OPTIONS] REMOTE… [LOCAL]")]
pub(super) struct GetArgs {
    /// The files and directories to download; the last of several is the target
    #[arg(required = true, value_name = "PATH", num_args = 1..)]
    paths: Vec<String>,
    /// Save everything in the local directory DIR, created if it is missing
    #[arg(long, short = 't', value_name = "DIR")]
    to: Option<String>,
    /// Use LOCAL as the name of the only source, even if it is a directory
    #[arg(long, short = 'T', conflicts_with = "to")]
    no_target_directory: bool,
    /// The action if a local file of that name exists [default: replace]
    #[arg(long, value_enum)]
    if_exists: Option<TransferIfExists>,
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

impl GetArgs {
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.retries.policy()
    }

    pub(super) async fn run(mut self, remote: &RemoteSession) -> anyhow::Result<()> {
        self.bandwidth.apply(&remote.session);
        let local = self.take_target(remote).await?;
        let if_exists = self.if_exists.unwrap_or(TransferIfExists::Replace);
        let options = FileOptions {
            if_exists: Some(if_exists.into()),
            algorithm: self.digest,
            parents: false,
            deltas: false,
        };
        if local == "-" {
            let mut failures = Failures::new(remote.output, "get", self.paths.len());
            self.paths = expand_names(&remote.client, &self.paths, &mut failures).await?;
            return to_pipe(remote, &self.paths, options).await;
        }
        let mut failures = Failures::new(remote.output, "get", self.paths.len());
        self.paths = expand_names(&remote.client, &self.paths, &mut failures).await?;
        if self.paths.is_empty() {
            return failures.finish();
        }
        let roots = self.roots(&local)?;
        let telling = ReportOptions {
            what: "get",
            verbose: self.verbose || if_exists == TransferIfExists::Rename,
        };
        let options = TreeOptions {
            skip_existing: if_exists == TransferIfExists::Skip,
            skip_unchanged: self.if_exists.is_none(),
            ..options.into()
        };
        let session = &remote.session;
        follow(remote, telling, |progress, notes| async move {
            session.get_trees(roots, options, &progress, notes).await
        })
        .await?;
        failures.finish()
    }

    /// Removes the target from the paths, of which then all are on the server.
    async fn take_target(&mut self, remote: &RemoteSession) -> anyhow::Result<String> {
        let target = match (&self.to, &*self.paths) {
            (Some(directory), _) => named_directory(&unquoted(directory))?,
            (None, paths)
                if paths.len() == 1 || paths.last().is_some_and(|it| is_marked_remote(it)) =>
            {
                without_content_marks(&mut self.paths);
                ".".to_owned()
            }
            (None, _) => {
                let last = unquoted(&self.paths.pop().context("there are several")?);
                if self.if_exists.is_none() && !self.no_target_directory {
                    refuse_ambiguous_target(remote, &last).await?;
                }
                last
            }
        };
        for path in &mut self.paths {
            *path = without_mark(path).to_owned();
        }
        Ok(target)
    }

    /// Each path with where it goes.
    fn roots(&self, local: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let target = if self.no_target_directory {
            only_name(local, self.paths.len())?
        } else {
            local_target(local, self.paths.len())?
        };
        if target == TransferTarget::Directory {
            let name = local.trim_end_matches('/');
            if Path::new(name).exists() && !Path::new(local).is_dir() {
                bail!("{name} is not a directory");
            }
            std::fs::create_dir_all(local)
                .with_context(|| format!("cannot make the directory {local}"))?;
        } else if let Some(parent) = Path::new(local).parent()
            && parent != Path::new("")
            && !parent.is_dir()
        {
            bail!("no such directory: {}", parent.display());
        }
        let places: Vec<_> = self
            .paths
            .iter()
            .map(|path| place(local, path, target))
            .collect();
        all_differ(places.iter().map(String::as_str))?;
        let roots = self.paths.iter().cloned();
        Ok(roots.zip(places.into_iter().map(PathBuf::from)).collect())
    }
}

async fn to_pipe(
    remote: &RemoteSession,
    paths: &[String],
    options: FileOptions,
) -> anyhow::Result<()> {
    let [path] = paths else {
        return Err(usage("only one file can be written to standard output"));
    };
    let progress = Progress::new();
    // A bar would disturb the data on a terminal.
    let bar = Bar::new(remote.output.beside_data(), &progress);
    let stdout = std::io::stdout();
    bar.during(remote.session.get_into(path, stdout, options, &progress))
        .await?;
    Ok(())
}

/// Refuses to replace a local file by another one of the server if the server has a file of that
/// name: it could be meant as one more thing to get.
async fn refuse_ambiguous_target(remote: &RemoteSession, target: &str) -> anyhow::Result<()> {
    let is_local = ["./", "../"].iter().any(|start| target.starts_with(start));
    if is_local || !Path::new(target).is_file() || remote.session.stat(target).await.is_err() {
        return Ok(());
    }
    Err(usage(format!(
        "{target} exists on this machine and on the server; to download it too, name a local \
         directory with `-t DIR` (`-t .` is the current one); to replace the local file, \
         add `--if-exists replace` or write `./{target}`"
    )))
}

//! `haul get`

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::exit::usage;
use super::progress::Bar;
use super::remote::Remote;
use super::transfer::{
    IfExistsChoice, Retries, Target, Telling, algorithm, all_differ, follow, local_target,
    under_own_name,
};
use crate::client::{FileOptions, Progress, RetryPolicy};
use crate::protocol::Algorithm;

/// Get files and whole directories
///
/// One path is got into the current directory, under its own name. Of several, the last is LOCAL: if
/// it is a directory that is there, or ends with a slash, the others go into it under their own names;
/// otherwise it is the new name of the only other. So `get a b` gets a as b, and
/// `get a b .` gets both. `-` as LOCAL writes one file to standard output.
///
/// A file appears under its name once it is whole and its digest is that of the server. If the
/// connection is lost it is made anew, and what was under way goes on from there. Directories that are there are filled up. Modification times of files are kept.
#[derive(Debug, Args)]
#[command(override_usage = "haul get [OPTIONS] REMOTE… [LOCAL]")]
pub(super) struct Get {
    /// What to get, and where to, if there are several
    #[arg(required = true, value_name = "PATH", num_args = 1..)]
    paths: Vec<String>,
    /// What to do if there is a file of that name here
    #[arg(long, value_enum, default_value = "replace")]
    if_exists: IfExistsChoice,
    /// The digest to compare: blake3, sha256 or md5
    #[arg(long, default_value = "blake3", value_name = "NAME", value_parser = algorithm)]
    digest: Algorithm,
    /// Print the path of every file
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    retries: Retries,
}

impl Get {
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.retries.policy()
    }

    pub(super) async fn run(mut self, remote: &Remote) -> anyhow::Result<()> {
        let local = match self.paths.len() {
            0 | 1 => ".".to_owned(),
            _ => self.paths.pop().context("there are several")?,
        };
        let options = FileOptions {
            if_exists: Some(self.if_exists.into()),
            algorithm: self.digest,
            parents: false,
        };
        if local == "-" {
            return to_pipe(remote, &self.paths, options).await;
        }
        let roots = self.roots(&local)?;
        let telling = Telling {
            what: "get",
            verbose: self.verbose || self.if_exists == IfExistsChoice::Rename,
        };
        let session = &remote.session;
        follow(remote, telling, |progress, notes| async move {
            session.get_trees(roots, options, &progress, notes).await
        })
        .await
    }

    /// Each path with where it goes.
    fn roots(&self, local: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let target = local_target(local, self.paths.len())?;
        if target == Target::Directory {
            std::fs::create_dir_all(local)
                .with_context(|| format!("could not make directory {local}"))?;
        } else if let Some(parent) = Path::new(local).parent()
            && parent != Path::new("")
            && !parent.is_dir()
        {
            bail!("no such directory: {}", parent.display());
        }
        let places: Vec<_> = self
            .paths
            .iter()
            .map(|path| match target {
                Target::Directory => under_own_name(local, path),
                Target::Name => local.to_owned(),
            })
            .collect();
        all_differ(places.iter().map(String::as_str))?;
        let roots = self.paths.iter().cloned();
        Ok(roots.zip(places.into_iter().map(PathBuf::from)).collect())
    }
}

async fn to_pipe(remote: &Remote, paths: &[String], options: FileOptions) -> anyhow::Result<()> {
    let [path] = paths else {
        return Err(usage("only one file at a time goes to standard output"));
    };
    let progress = Progress::new();
    let bar = Bar::new(remote.output, &progress);
    let stdout = std::io::stdout();
    bar.during(remote.session.get_into(path, stdout, options, &progress))
        .await?;
    Ok(())
}

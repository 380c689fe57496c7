//! `haul put`

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::exit::usage;
use super::output::print_json;
use super::progress::Bar;
use super::remote::Remote;
use super::room::with_room_explained;
use super::transfer::{
    IfExistsChoice, Retries, Target, Telling, algorithm, all_differ, follow, last_name,
    remote_target, under_own_name,
};
use crate::client::{FileOptions, Progress, RetryPolicy};
use crate::protocol::Algorithm;

/// Put files and whole directories
///
/// One path is put into the current directory on the server, under its own name. Of several, the
/// last is REMOTE: if it is a directory that is there, or ends with a slash, the others go into it
/// under their own names; otherwise it is the new name of the only other. `-` as LOCAL puts what comes
/// from standard input, and needs a REMOTE.
///
/// A file appears on the server once it is whole and safe. If the connection is lost it is made anew,
/// and what was under way goes on from there; so does the same command, typed again after this one was
/// stopped. Directories that are there are filled up. Links to files and directories are followed. Modification times of files are kept.
#[derive(Debug, Args)]
#[command(override_usage = "haul put [OPTIONS] LOCAL… [REMOTE]")]
pub(super) struct Put {
    /// What to put, and where to, if there are several
    #[arg(required = true, value_name = "PATH", num_args = 1..)]
    paths: Vec<String>,
    /// What to do if there is a file of that name on the server
    #[arg(long, value_enum, default_value = "replace")]
    if_exists: IfExistsChoice,
    /// Make missing directories on the way
    #[arg(long, short)]
    parents: bool,
    /// The digest to compare: blake3, sha256 or md5
    #[arg(long, default_value = "blake3", value_name = "NAME", value_parser = algorithm)]
    digest: Algorithm,
    /// Print the path of every file
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    retries: Retries,
}

impl Put {
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.retries.policy()
    }

    pub(super) async fn run(mut self, remote: &Remote) -> anyhow::Result<()> {
        let to = match self.paths.len() {
            0 | 1 => ".".to_owned(),
            _ => self.paths.pop().context("there are several")?,
        };
        let options = FileOptions {
            if_exists: Some(self.if_exists.into()),
            algorithm: self.digest,
            // A slash at the end says that a directory is meant, there or not.
            parents: self.parents || to.ends_with('/'),
        };
        if self.paths.iter().any(|path| path == "-") || to == "-" {
            return self.put_pipe(remote, &to, options).await;
        }
        let roots = self.roots(remote, &to).await?;
        let telling = Telling {
            what: "put",
            verbose: self.verbose || self.if_exists == IfExistsChoice::Rename,
        };
        let session = &remote.session;
        let outcome = follow(remote, telling, |progress, notes| async move {
            session.put_trees(roots, options, &progress, notes).await
        })
        .await;
        match outcome {
            Err(error) => Err(with_room_explained(remote, error).await),
            Ok(()) => Ok(()),
        }
    }

    /// Whether standard input is among what is put.
    pub(super) fn reads_stdin(&self) -> bool {
        self.paths.iter().any(|path| path == "-")
    }

    /// Each path with where it goes.
    async fn roots(&self, remote: &Remote, to: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let target = match &*self.paths {
            _ if to == "." => Target::Directory,
            paths => remote_target(remote, to, paths.len()).await?,
        };
        let places: Vec<_> = self
            .paths
            .iter()
            .map(|path| match target {
                Target::Directory => under_own_name(to, path),
                Target::Name => to.to_owned(),
            })
            .collect();
        all_differ(places.iter().map(String::as_str))?;
        let roots = self.paths.iter().map(PathBuf::from);
        Ok(roots.zip(places).collect())
    }

    async fn put_pipe(
        &self,
        remote: &Remote,
        to: &str,
        options: FileOptions,
    ) -> anyhow::Result<()> {
        if self.paths.len() > 1 || last_name(to).is_none() || to.ends_with('/') {
            return Err(usage("standard input needs a name: `haul put - NAME`"));
        }
        let progress = Progress::new();
        let bar = Bar::new(remote.output, &progress);
        let stdin = std::io::stdin();
        let put = remote.session.put_from(stdin, to, options, &progress);
        let reply = match bar.during(put).await {
            Ok(reply) => reply,
            Err(error) => return Err(with_room_explained(remote, error.into()).await),
        };
        if remote.output.is_json() {
            print_json(&reply)?;
        } else {
            remote.output.note(&reply.path);
        }
        Ok(())
    }
}

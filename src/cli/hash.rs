//! `haul hash`

use clap::Args;
use serde::Serialize;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::cli::transfer::algorithm;
use crate::protocol::{Algorithm, Digest};

/// Print the digests of files, computed by the server
///
/// With `--check-format`, `sha256sum -c` and `md5sum -c` can check a copy of the files.
#[derive(Debug, Args)]
pub(super) struct HashArgs {
    /// The files on the server
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// The digest to print: blake3, sha256 or md5
    #[arg(long, default_value = "blake3", value_name = "NAME", value_parser = algorithm)]
    digest: Algorithm,
    /// Print the lines that `sha256sum -c` and `md5sum -c` read
    #[arg(long)]
    check_format: bool,
}

#[derive(Serialize)]
struct Hashed<'a> {
    path: &'a str,
    digest: Digest,
    size: u64,
}

impl HashArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        for path in &self.paths {
            let reply = remote.client.hash(path, self.digest).await?;
            let hashed = Hashed {
                path,
                digest: reply.digest,
                size: reply.size,
            };
            remote.output.result(&hashed, |hashed| {
                let text = hashed.digest.to_string();
                let digest = match text.split_once(':') {
                    Some((_, digits)) if self.check_format => digits,
                    _ => &text,
                };
                format!("{digest}  {}", safe(hashed.path))
            })?;
        }
        Ok(())
    }
}

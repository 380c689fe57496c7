//! `haul cat`

use clap::Args;

use crate::cli::expand::expand_names;
use crate::cli::failures::Failures;
use crate::cli::remote_session::RemoteSession;
use crate::client::{FileOptions, Progress};

/// Print files of the server
///
/// The bytes go to standard output as they arrive. If the digest of a file proves wrong at its end, the
/// command fails with exit code 1. A path may have the wildcards `*`, `?` and `[...]`; quote them from your
/// shell.
#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// The files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl CatArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut failures = Failures::new(remote.output, "cat", self.paths.len());
        for path in expand_names(&remote.client, &self.paths, &mut failures).await? {
            let (output, progress) = (std::io::stdout(), Progress::new());
            let options = FileOptions::default();
            let printed = remote.session.get_into(&path, output, options, &progress);
            if let Err(error) = printed.await {
                failures.add(error.into())?;
            }
        }
        failures.finish()
    }
}

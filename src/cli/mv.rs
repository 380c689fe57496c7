//! `haul mv`

use clap::Args;

use crate::cli::expand::expand_names;
use crate::cli::failures::Failures;
use crate::cli::remote_session::RemoteSession;
use crate::cli::transfer::{IfExistsChoice, into_directory, must_differ, why_not};
use crate::cli::wildcards::unquoted;

/// Move or rename files and directories
///
/// If the last path is an existing directory or ends with a slash, the others go into it under their
/// own names. Otherwise it is the new name of the only other path. All but the last path may have the
/// wildcards `*`, `?` and `[...]`; quote them from your shell. A backslash before such a character
/// makes it part of the name.
#[derive(Debug, Args)]
pub(super) struct MvArgs {
    /// The paths to move
    #[arg(required = true, value_name = "FROM")]
    from: Vec<String>,
    /// The new path, or the directory for them
    #[arg(value_name = "TO")]
    to: String,
    /// The action if the new path exists
    #[arg(long, value_enum, default_value = "fail")]
    if_exists: IfExistsChoice,
}

impl MvArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut failures = Failures::new(remote.output, "mv", self.from.len());
        let from = expand_names(&remote.client, &self.from, &mut failures).await?;
        if from.is_empty() {
            return failures.finish();
        }
        let pairs = into_directory(remote, from, &unquoted(&self.to)).await?;
        for (from, to) in &pairs {
            if let Err(error) = self.rename(remote, from, to).await {
                failures.add(error)?;
            }
        }
        failures.finish()
    }

    async fn rename(&self, remote: &RemoteSession, from: &str, to: &str) -> anyhow::Result<()> {
        must_differ(remote, from, to).await?;
        match remote.client.mv(from, to, self.if_exists.into()).await {
            Ok(path) => remote.output.done(&path),
            Err(error) => Err(why_not(remote, from, to, error).await),
        }
    }
}

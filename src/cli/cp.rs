//! `haul cp`

use clap::Args;

use crate::cli::expand::expand_names;
use crate::cli::failures::Failures;
use crate::cli::remote_session::RemoteSession;
use crate::cli::space_message::with_space_explained;
use crate::cli::transfer::{IfExistsChoice, into_directory, must_differ, why_not};
use crate::cli::wildcards::unquoted;

/// Copy files and directories on the server
///
/// If the last path is an existing directory or ends with a slash, the others go into it under their
/// own names. Otherwise it is the new name of the only other path. All but the last path may have the
/// wildcards `*`, `?` and `[...]`; quote them from your shell. A backslash before such a character
/// makes it part of the name.
#[derive(Debug, Args)]
pub(super) struct CpArgs {
    /// The paths to copy
    #[arg(required = true, value_name = "FROM")]
    from: Vec<String>,
    /// The new path, or the directory for them
    #[arg(value_name = "TO")]
    to: String,
    /// The action if the new path exists
    #[arg(long, value_enum, default_value = "fail")]
    if_exists: IfExistsChoice,
    /// Accepted for habit: directories are always copied with their content
    #[arg(long = "recursive", short = 'r', visible_short_alias = 'R')]
    _recursive: bool,
}

impl CpArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut failures = Failures::new(remote.output, "cp", self.from.len());
        let from = expand_names(&remote.client, &self.from, &mut failures).await?;
        if from.is_empty() {
            return failures.finish();
        }
        let pairs = into_directory(remote, from, &unquoted(&self.to)).await?;
        for (from, to) in &pairs {
            if let Err(error) = self.copy(remote, from, to).await {
                failures.add(error)?;
            }
        }
        failures.finish()
    }

    async fn copy(&self, remote: &RemoteSession, from: &str, to: &str) -> anyhow::Result<()> {
        must_differ(remote, from, to).await?;
        match remote.client.cp(from, to, self.if_exists.into()).await {
            Ok(path) => remote.output.done(&path),
            Err(error) => {
                let error = why_not(remote, from, to, error).await;
                Err(with_space_explained(remote, Some(to), error).await)
            }
        }
    }
}

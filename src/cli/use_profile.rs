//! `haul use`

use clap::Args;

use crate::cli::output::Output;
use crate::cli::profile_file::ProfileFile;
use crate::cli::profile_name::ProfileName;
use crate::cli::selection::PROFILE_VARIABLE;

/// Choose the profile that commands use, in all terminals
///
/// Where `HAUL_PROFILE` or `HAUL_SERVER` is set, and for commands with `--profile` or `--server`, that
/// one counts.
#[derive(Debug, Args)]
pub(super) struct UseArgs {
    /// The profile, as `haul profiles` lists it
    #[arg(value_name = "NAME")]
    name: ProfileName,
}

impl UseArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let profile = ProfileFile::select(self.name.clone()).await?;
        output.note(&format!(
            "commands in all terminals use profile {} now: {}",
            self.name,
            profile.server()
        ));
        for variable in [PROFILE_VARIABLE, "HAUL_SERVER"] {
            if let Ok(value) = std::env::var(variable) {
                output.note(&format!(
                    "but in this shell {variable} is set and counts: {value}"
                ));
            }
        }
        Ok(())
    }
}

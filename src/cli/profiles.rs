//! `haul profiles`

use clap::Args;
use serde::Serialize;

use crate::cli::global_options::GlobalOptions;
use crate::cli::output::{Output, safe};
use crate::cli::profile_file::ProfileFile;
use crate::cli::saved_login::SavedLogin;
use crate::cli::selection::{PROFILE_VARIABLE, chosen_profile};
use crate::cli::table::table;

/// List the saved profiles, the one in use marked with `*`
///
/// The profile in use is that of `--profile` or `HAUL_PROFILE`; without them it is the current one,
/// which `haul use` chooses. `haul connect` adds profiles, `haul logout` removes them.
#[derive(Debug, Args)]
pub(super) struct ProfilesArgs {}

/// A profile as `--json` shows it.
#[derive(Debug, Serialize)]
struct ProfileObject {
    profile: String,
    server: String,
    login: String,
    current: bool,
    in_use: bool,
}

impl ProfilesArgs {
    pub(super) fn run(global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        let file = ProfileFile::load()?;
        let chosen = chosen_profile(global)?;
        let current = file.current().map(|(name, _)| name);
        let in_use = chosen.as_ref().or(current);
        let objects: Vec<_> = file
            .profiles()
            .map(|(name, profile)| ProfileObject {
                profile: name.to_string(),
                server: profile.server().to_owned(),
                login: profile
                    .login
                    .as_ref()
                    .map_or("asks".into(), SavedLogin::describe),
                current: Some(name) == current,
                in_use: Some(name) == in_use,
            })
            .collect();
        if objects.is_empty() {
            output.note("there are no profiles; `haul connect haul://USER@HOST:9000` adds one");
            return Ok(());
        }
        output.list(&objects, || {
            let rows: Vec<_> = objects.iter().map(row).collect();
            table(["", "PROFILE", "SERVER", "LOGIN"], &rows)
        })?;
        match (&chosen, current) {
            (Some(chosen), _) if file.get(chosen).is_err() => {
                output.note(&format!("there is no profile {chosen}, which is chosen here"));
            }
            (Some(chosen), Some(current)) if chosen != current => output.note(&format!(
                "{chosen} is chosen here, by --profile or {PROFILE_VARIABLE}; elsewhere it is {current}"
            )),
            (None, None) => output.note("no profile is current; choose one with `haul use NAME`"),
            _ => {}
        }
        Ok(())
    }
}

fn row(profile: &ProfileObject) -> [String; 4] {
    let mark = if profile.in_use { "*" } else { "" };
    [mark, &profile.profile, &profile.server, &profile.login].map(|cell| safe(cell).into_owned())
}

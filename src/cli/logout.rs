//! `haul logout`

use anyhow::bail;
use clap::Args;

use crate::cli::events::EventDisplay;
use crate::cli::exit::{GivenBy, NoSession, usage};
use crate::cli::global_options::GlobalOptions;
use crate::cli::output::Output;
use crate::cli::profile_file::{Profile, ProfileFile};
use crate::cli::profile_name::ProfileName;
use crate::cli::remote_session::{leave, open_by};
use crate::cli::saved_login::SavedLogin;
use crate::cli::selection::chosen_profile;
use crate::client::ClientError;
use crate::protocol::{ErrorCode, TokenRemove};

/// Remove a profile, and revoke the token of this device at its server
///
/// If the server cannot be reached, the profile is removed all the same, and the exit code is 1: the
/// token stays valid until it expires or `haul token remove` revokes it. A password or token that you
/// gave yourself is removed from this device only.
#[derive(Debug, Args)]
pub(super) struct LogoutArgs {
    /// The profile; by default that of `--profile` or `HAUL_PROFILE`, or the current one
    #[arg(value_name = "NAME")]
    name: Option<ProfileName>,
}

impl LogoutArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: &Output) -> anyhow::Result<()> {
        let file = ProfileFile::load()?;
        let chosen = match self.name {
            Some(name) => Some(name),
            None => chosen_profile(global)?,
        };
        let current = file.current().map(|(name, _)| name.clone());
        let was_current = chosen.is_none() || chosen == current;
        let Some(name) = chosen.or(current) else {
            return Err(usage("which profile? `haul profiles` lists them"));
        };
        let profile = file.get(&name)?;
        let revoked = revoke_device_token(global, profile).await;
        ProfileFile::remove(name.clone()).await?;
        if let Err((number, error)) = revoked {
            let server = profile.server();
            bail!(
                "removed profile {name}, but token {number} is still valid on {server}: {error}; \
                 to revoke it, log in there again with `haul connect` and run \
                 `haul token remove {number}`"
            );
        }
        output.note(&format!("removed profile {name} ({})", profile.server()));
        if was_current && file.profiles().count() > 1 {
            output.note("no profile is current now; choose one with `haul use NAME`");
        }
        Ok(())
    }
}

/// Revokes the token of this device, if the profile has one. A token that does not log in any more is
/// as good as revoked.
async fn revoke_device_token(
    global: &GlobalOptions,
    profile: &Profile,
) -> Result<(), (u64, anyhow::Error)> {
    let Some(SavedLogin::Device(device)) = &profile.login else {
        return Ok(());
    };
    let number = device.number;
    let revoking = async {
        let login = (SavedLogin::Device(device.clone()), GivenBy::Remembered);
        let opened = open_by(global, profile.url()?, login, EventDisplay::Nothing).await?;
        let request = TokenRemove { number, user: None };
        let outcome = opened.client.call(request).await;
        leave(&opened.client).await;
        anyhow::Ok(outcome.map(drop)?)
    };
    match revoking.await {
        Err(error) if !is_invalid(&error) => Err((number, error)),
        _ => Ok(()),
    }
}

/// Whether the server says that the token is not valid.
fn is_invalid(error: &anyhow::Error) -> bool {
    let code = match error.downcast_ref() {
        Some(NoSession::Refused { error, .. }) => error.code(),
        _ => error
            .downcast_ref::<ClientError>()
            .and_then(ClientError::code),
    };
    matches!(code, Some(ErrorCode::LoginFailed | ErrorCode::NotFound))
}

//! Which server a command is for: by an option, by the environment, or by the current profile.

use std::env;

use crate::cli::exit::usage;
use crate::cli::global_options::GlobalOptions;
use crate::cli::profile_file::{Profile, ProfileFile};
use crate::cli::profile_name::ProfileName;
use crate::cli::saved_login::SavedLogin;
use crate::client::ServerUrl;

/// The environment variable that chooses a profile for one shell.
pub(crate) const PROFILE_VARIABLE: &str = "HAUL_PROFILE";

/// What the options and the environment say.
#[derive(Debug, PartialEq, Eq)]
enum GivenServer {
    Profile(ProfileName),
    Url(String),
    Nothing,
}

/// The server of a command, and the saved way to log in.
#[derive(Debug)]
pub(crate) struct SelectedServer {
    pub(crate) url: ServerUrl,
    pub(crate) login: Option<SavedLogin>,
    /// The user whom an address names, who must be the one that the login turns out to be.
    pub(crate) asked: Option<String>,
}

impl SelectedServer {
    /// Follows, in this order: `--profile`; `--server` or `HAUL_SERVER`; `HAUL_PROFILE`; the current
    /// profile.
    pub(crate) fn find(global: &GlobalOptions) -> anyhow::Result<Self> {
        let profiles = ProfileFile::load()?;
        match given(global, env::var(PROFILE_VARIABLE))? {
            GivenServer::Profile(name) => Self::of_profile(profiles.get(&name)?),
            GivenServer::Url(text) => {
                let url = parse(&text)?;
                let asked = url.user.clone();
                let url = profiles.with_user(url);
                let login = profiles.login(&url).cloned();
                Ok(Self { url, login, asked })
            }
            GivenServer::Nothing => match profiles.current() {
                Some((_, profile)) => Self::of_profile(profile),
                None => Err(no_server(&profiles)),
            },
        }
    }

    fn of_profile(profile: &Profile) -> anyhow::Result<Self> {
        Ok(Self {
            url: profile.url()?,
            login: profile.login.clone(),
            asked: None,
        })
    }
}

/// The profile that `--profile` or `HAUL_PROFILE` chooses.
pub(crate) fn chosen_profile(global: &GlobalOptions) -> anyhow::Result<Option<ProfileName>> {
    match given(global, env::var(PROFILE_VARIABLE))? {
        GivenServer::Profile(name) => Ok(Some(name)),
        GivenServer::Url(_) | GivenServer::Nothing => Ok(None),
    }
}

fn given(
    global: &GlobalOptions,
    variable: Result<String, env::VarError>,
) -> anyhow::Result<GivenServer> {
    if let Some(name) = &global.profile {
        return Ok(GivenServer::Profile(name.clone()));
    }
    if let Some(url) = &global.server {
        return Ok(GivenServer::Url(url.clone()));
    }
    match variable {
        Ok(name) if name.is_empty() => Ok(GivenServer::Nothing),
        Ok(name) => {
            let name = name.parse();
            let name = name.map_err(|error| usage(format!("{PROFILE_VARIABLE}: {error}")));
            Ok(GivenServer::Profile(name?))
        }
        Err(env::VarError::NotPresent) => Ok(GivenServer::Nothing),
        Err(env::VarError::NotUnicode(_)) => Err(usage(format!("{PROFILE_VARIABLE} is not UTF-8"))),
    }
}

fn no_server(profiles: &ProfileFile) -> anyhow::Error {
    if profiles.profiles().next().is_some() {
        return usage(
            "no profile is current; choose one with `haul use NAME`; `haul profiles` lists them",
        );
    }
    usage(
        "no server is known; run `haul connect haul://USER@HOST:9000` once, add \
         `--server haul://USER@HOST:9000`, or set HAUL_SERVER",
    )
}

/// An address that the user typed.
pub(crate) fn parse(text: &str) -> anyhow::Result<ServerUrl> {
    text.parse().map_err(|error| usage(format!("{error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct OptionsAlone {
        #[command(flatten)]
        global: GlobalOptions,
    }

    fn given_by(args: &[&str], variable: Option<&str>) -> GivenServer {
        let args = ["haul"].iter().chain(args);
        let options = OptionsAlone::try_parse_from(args).expect("arguments");
        let variable = variable.map(str::to_owned).ok_or(env::VarError::NotPresent);
        given(&options.global, variable).expect("a choice")
    }

    #[test]
    fn an_option_comes_before_the_environment_and_a_profile_before_a_server() {
        let profile = |name: &str| GivenServer::Profile(name.parse().expect("a name"));
        let url = || GivenServer::Url("haul://host".into());
        assert_eq!(given_by(&["-P", "work"], Some("home")), profile("work"));
        assert_eq!(
            given_by(&["--server", "haul://host", "--profile", "work"], None),
            profile("work")
        );
        assert_eq!(given_by(&["--server", "haul://host"], Some("home")), url());
        assert_eq!(given_by(&[], Some("home")), profile("home"));
        assert_eq!(given_by(&[], Some("")), GivenServer::Nothing);
        assert_eq!(given_by(&[], None), GivenServer::Nothing);
    }

    #[test]
    fn a_profile_that_cannot_be_is_refused_with_the_variable() {
        let options = OptionsAlone::try_parse_from(["haul"]).expect("arguments");
        let error = given(&options.global, Ok("a b".into())).expect_err("refused");
        assert!(error.to_string().starts_with("HAUL_PROFILE: "), "{error}");
    }
}

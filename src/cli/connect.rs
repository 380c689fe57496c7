//! `haul connect`

use std::time::Duration;

use clap::Args;
use rustix::system::uname;

use crate::accounts::{MAX_LABEL_CHARS, TokenExpiry, TokenLabel};
use crate::cli::events::EventDisplay;
use crate::cli::exit::{NoSession, usage};
use crate::cli::global_options::GlobalOptions;
use crate::cli::known_servers::KnownServers;
use crate::cli::output::{Output, local_time, print_json};
use crate::cli::profile_file::{NewProfile, ProfileFile, SavedProfile};
use crate::cli::profile_name::ProfileName;
use crate::cli::remote_administration::token_request;
use crate::cli::remote_session::{OpenedSession, choose_login, leave, open_by};
use crate::cli::saved_login::{DeviceToken, SavedLogin};
use crate::cli::selection::{PROFILE_VARIABLE, chosen_profile, parse};
use crate::client::{Client, ClientError, ServerUrl};
use crate::protocol::{ErrorCode, TokenAddReply, TokenRemove};

/// The shortest wait for a server that is at a limit.
const MIN_LIMITED_WAIT: Duration = Duration::from_secs(1);

/// The longest time to wait for a server that is at a limit, all waits together.
const MAX_LIMITED_WAIT: Duration = Duration::from_mins(1);

/// Log in to a server and save it as a profile
///
/// Asks for the password, unless `HAUL_PASSWORD`, `--password-file`, `--token-file` or `--cert` gives
/// a way to log in. The password is not saved: the server makes a token for this device, which
/// `haul token list` shows and `haul logout` revokes. A change of the password leaves it valid.
///
/// The first profile becomes the current one, which commands use. Another profile does not, unless
/// `--use` says so: `haul use NAME` changes the current profile for all terminals, `HAUL_PROFILE=NAME`
/// for one shell, and `--profile NAME` for one command. For a server and user that have a profile,
/// this replaces the token of that profile.
///
/// A server that is not known is trusted if you confirm its fingerprint, and known by it from then
/// on. `--fingerprint` confirms it in advance, also for a server whose certificate has changed.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// The server and the user, such as `haul://alice@host:9000`; by default those of the profile that
    /// `--as` or `--profile` names
    url: Option<String>,
    /// The name of the profile; by default the user and the host
    #[arg(long = "as", value_name = "NAME")]
    name: Option<ProfileName>,
    /// Make the profile the current one, for all terminals
    #[arg(long = "use")]
    make_current: bool,
    /// Save no way to log in; every command asks for the password
    #[arg(long)]
    ask: bool,
    /// When the token of this device expires: after a time such as 90d, at a time, or "never". Without
    /// this, in 365 days
    #[arg(long, value_name = "WHEN", conflicts_with = "ask")]
    expires: Option<TokenExpiry>,
}

impl ConnectArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: &Output) -> anyhow::Result<()> {
        let (url, name) = self.server(global)?;
        // A saved way to log in is not used: it may be the reason to connect again.
        let asked = url.user.clone();
        let opened = open_when_admitted(global, output, url)
            .await?
            .of(asked)
            .await?;
        let outcome = self.save(global, output, &opened, name).await;
        leave(&opened.client).await;
        outcome?;
        if output.is_json() {
            print_json(&opened.reply)?;
        }
        Ok(())
    }

    /// The address to connect to, and the name of the profile if the user chooses it.
    fn server(&self, global: &GlobalOptions) -> anyhow::Result<(ServerUrl, Option<ProfileName>)> {
        let given = self.url.as_ref().or(global.server.as_ref());
        let chosen = match &self.name {
            None if given.is_none() => chosen_profile(global)?,
            name => name.clone(),
        };
        match (given, chosen) {
            (Some(text), name) => Ok((parse(text)?, name)),
            (None, Some(name)) => {
                let url = ProfileFile::load()?.get(&name)?.url()?;
                Ok((url, Some(name)))
            }
            (None, None) => Err(usage("which server? `haul connect haul://USER@HOST:9000`")),
        }
    }

    async fn save(
        &self,
        global: &GlobalOptions,
        output: &Output,
        opened: &OpenedSession,
        name: Option<ProfileName>,
    ) -> anyhow::Result<()> {
        let fingerprint = opened.client.fingerprint();
        if let (Some(given), Some(_)) = (global.trust.fingerprint, fingerprint) {
            KnownServers::remember(&opened.way.url.address(), given).await?;
        }
        let (login, description) = self.login_to_save(opened).await?;
        let device = match &login {
            Some(SavedLogin::Device(device)) => Some(device.number),
            _ => None,
        };
        let new = NewProfile {
            name,
            url: opened.way.url.clone(),
            login,
            make_current: self.make_current,
        };
        let saved = match ProfileFile::save(new).await {
            Ok(saved) => saved,
            Err(error) => {
                // Nobody has the token that was made.
                revoke(&opened.client, device).await;
                return Err(error);
            }
        };
        revoke(&opened.client, saved.replaced_token).await;
        let (url, server) = (&opened.way.url, &opened.reply.server);
        output.note(&format!(
            "logged in to {url} ({server}) as profile {}",
            saved.name
        ));
        output.note(&description);
        output.note(&describe_current(&saved));
        if let Some(fingerprint) = fingerprint {
            output.note(&format!(
                "the server's certificate has the fingerprint {fingerprint}"
            ));
        }
        Ok(())
    }

    /// The way to log in from now on, and a line about it.
    async fn login_to_save(
        &self,
        opened: &OpenedSession,
    ) -> anyhow::Result<(Option<SavedLogin>, String)> {
        if self.ask {
            let text = "no way to log in is saved; every command asks for the password";
            return Ok((None, text.into()));
        }
        let login = opened.way.login.clone();
        let text = match &login {
            SavedLogin::Password(_) => return self.device_token(opened, login).await,
            SavedLogin::Token(_) | SavedLogin::Device(_) => "the token that you gave is saved",
            SavedLogin::Certificate(_) => "the path of your certificate is saved",
        };
        Ok((Some(login), text.into()))
    }

    /// A token for this device; the password on a server that does not make tokens.
    async fn device_token(
        &self,
        opened: &OpenedSession,
        password: SavedLogin,
    ) -> anyhow::Result<(Option<SavedLogin>, String)> {
        let request = token_request(None, &device_label(), self.expires);
        match opened.client.call(request).await {
            Ok(TokenAddReply {
                token,
                number,
                expires,
            }) => {
                let until = expires.map_or("does not expire".into(), |time| {
                    format!("expires at {}", local_time(time))
                });
                let text = format!("this device has token {number}, which {until}");
                let device = DeviceToken { token, number };
                Ok((Some(SavedLogin::Device(device)), text))
            }
            Err(error) if is_unknown_command(&error) => {
                let text = "the password is saved, because this server makes no tokens for devices";
                Ok((Some(password), text.into()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Logs in. If the server is at a limit, this waits as long as it asks for, within bounds.
async fn open_when_admitted(
    global: &GlobalOptions,
    output: &Output,
    url: ServerUrl,
) -> anyhow::Result<OpenedSession> {
    let (url, login) = choose_login(global, url, None).await?;
    let mut waited = Duration::ZERO;
    loop {
        let opening = open_by(global, url.clone(), login.clone(), EventDisplay::Nothing);
        let error = match opening.await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let Some(wait) = requested_wait(&error, waited) else {
            return Err(error);
        };
        let seconds = wait.as_secs_f64().ceil();
        output.note(&format!("{error}; trying again in {seconds} s"));
        tokio::time::sleep(wait).await;
        waited += wait;
    }
}

/// The time to wait after `error`: none if the server did not refuse the session because of a limit,
/// or if the waits would be too long.
fn requested_wait(error: &anyhow::Error, waited: Duration) -> Option<Duration> {
    let (NoSession::Client(error) | NoSession::Refused { error, .. }) = error.downcast_ref()?
    else {
        return None;
    };
    if error.code() != Some(ErrorCode::Limited) {
        return None;
    }
    let wait = error
        .retry_after()
        .unwrap_or_default()
        .max(MIN_LIMITED_WAIT);
    (waited.saturating_add(wait) <= MAX_LIMITED_WAIT).then_some(wait)
}

/// Whether the server is of a version that does not have the command.
fn is_unknown_command(error: &ClientError) -> bool {
    let ClientError::Server(refusal) = error else {
        return false;
    };
    matches!(refusal.code, ErrorCode::BadRequest | ErrorCode::Unsupported)
        && refusal.field.as_deref() == Some("cmd")
}

/// Revokes a token that this device does not use. If that fails, the token expires by itself.
async fn revoke(client: &Client, number: Option<u64>) {
    if let Some(number) = number {
        let request = TokenRemove { number, user: None };
        let _ = client.call(request).await;
    }
}

/// The label of this device's token.
fn device_label() -> TokenLabel {
    let name = uname();
    let label = format!("haul on {}", name.nodename().to_string_lossy());
    let printable = label.chars().filter(|c| !c.is_control());
    let label: String = printable.take(MAX_LABEL_CHARS).collect();
    label.parse().unwrap_or_default()
}

fn describe_current(SavedProfile { name, current, .. }: &SavedProfile) -> String {
    if name == current {
        return format!("{name} is the current profile");
    }
    format!(
        "{current} stays the current profile; `haul use {name}` changes that for all terminals, \
         `export {PROFILE_VARIABLE}={name}` for one shell"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Lost;
    use crate::protocol::WireError;

    #[test]
    fn a_limit_of_the_server_is_waited_for_at_most_a_minute() {
        let refused = |code, retry_after_ms| {
            let mut error = WireError::new(code, "no");
            error.retry_after_ms = retry_after_ms;
            anyhow::Error::from(NoSession::from(ClientError::Lost(Lost::Refused(error))))
        };
        let limited = |millis| refused(ErrorCode::Limited, millis);
        let seconds = Duration::from_secs;
        for (error, waited, wait) in [
            (limited(Some(5000)), 0, Some(5)),
            (limited(Some(5000)), 55, Some(5)),
            (limited(Some(5000)), 56, None),
            (limited(None), 0, Some(1)),
            (limited(Some(u64::MAX)), 0, None),
            (refused(ErrorCode::LoginFailed, Some(5000)), 0, None),
        ] {
            let found = requested_wait(&error, seconds(waited));
            assert_eq!(found, wait.map(seconds), "{error}");
        }
    }

    #[test]
    fn the_token_of_a_device_is_named_after_its_host() {
        let label = device_label();
        assert!(label.as_str().starts_with("haul on "), "{label:?}");
    }
}

//! `haul connect`

use crate::cli::events::EventDisplay;
use crate::cli::exit::usage;
use crate::cli::global_options::GlobalOptions;
use crate::cli::known_servers::KnownServers;
use crate::cli::output::{Output, print_json};
use crate::cli::remote_session::{leave, open_with, parse};
use crate::cli::saved_login::{Remembered, SavedLogin};
use clap::Args;

/// Check and remember a server and a login
///
/// Logs in to the server and remembers it, with the user and the password, for all commands that
/// name no server. The password is asked for, unless `HAUL_PASSWORD`, `--password-file`,
/// `--token-file` or `--cert` gives a way to log in; it is kept in a file that only you can read.
///
/// A server that is not known is trusted if you say so, and from then on known by its certificate.
/// `--fingerprint` says so without being asked, also of a server whose certificate has changed.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// The server and the user, such as `haul://alice@host:9000`
    url: Option<String>,
    /// Do not remember the password; every command asks for it
    #[arg(long)]
    ask: bool,
}

impl ConnectArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: &Output) -> anyhow::Result<()> {
        let url = self
            .url
            .as_ref()
            .or(global.server.as_ref())
            .ok_or_else(|| usage("which server? `haul connect haul://USER@HOST:9000`"))?;
        let url = parse(url)?;
        // A remembered password is not used: whoever connects anew may have a new one.
        let asked = url.user.clone();
        let opened = open_with(global, url, None, EventDisplay::Nothing)
            .await?
            .of(asked)
            .await?;
        leave(&opened.client).await;
        let fingerprint = opened.client.fingerprint();
        if let (Some(given), Some(_)) = (global.trust.fingerprint, fingerprint) {
            KnownServers::remember(&opened.way.url.address(), given).await?;
        }
        let login = (!self.ask).then_some(opened.way.login);
        let with_what = match &login {
            None => "without the password",
            Some(SavedLogin::Password(_)) => "with the password",
            Some(SavedLogin::Token(_)) => "with the token",
            Some(SavedLogin::Certificate(_)) => "with the path of your certificate",
        };
        let path = Remembered::remember(&opened.way.url, login).await?;
        output.note(&format!(
            "logged in to {} ({}); remembered {} in {}",
            opened.way.url,
            opened.reply.server,
            with_what,
            path.display()
        ));
        if let Some(fingerprint) = fingerprint {
            output.note(&format!(
                "its certificate has the fingerprint {fingerprint}"
            ));
        }
        if output.is_json() {
            print_json(&opened.reply)?;
        }
        Ok(())
    }
}

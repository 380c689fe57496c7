//! `haul connect`

use super::Global;
use super::exit::usage;
use super::output::{Output, print_json};
use super::remembered::Remembered;
use super::remote::{leave, open_with, parse};
use clap::Args;

/// Check and remember a server and a login
///
/// Logs in to the server and remembers it, with the user and the password, for all commands that
/// name no server. The password is asked for, unless `HAUL_PASSWORD`, `--password-file`
/// or `--token-file` gives one; it is kept in a file that only you can read.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The server and the user, such as `haul+plain://alice@host:9000`
    url: Option<String>,
    /// Do not remember the password; every command asks for it
    #[arg(long)]
    ask: bool,
}

impl Connect {
    pub(super) async fn run(self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let url = self
            .url
            .as_ref()
            .or(global.server.as_ref())
            .ok_or_else(|| usage("which server? `haul connect haul+plain://USER@HOST:9000`"))?;
        let url = parse(url)?;
        // A remembered password is not used: whoever connects anew may have a new one.
        let asked = url.user.clone();
        let opened = open_with(global, url, None).await?.of(asked).await?;
        leave(&opened.client).await;
        let login = (!self.ask).then_some(opened.login);
        let path = Remembered::load()?.remember(&opened.url, login)?;
        output.note(&format!(
            "logged in to {} ({}); remembered {} in {}",
            opened.url,
            opened.reply.server,
            if self.ask {
                "without the password"
            } else {
                "with the password"
            },
            path.display()
        ));
        if output.is_json() {
            print_json(&opened.reply)?;
        }
        Ok(())
    }
}

//! `haul admin reload`

use anyhow::bail;
use clap::Args;

use crate::cli::output::safe;
use crate::cli::remote_session::RemoteSession;
use crate::protocol::{ReloadReply, ReloadSettings, SettingChange};

/// Make the server read its settings and its certificate again
///
/// SIGHUP does the same. If a setting is wrong, none is changed.
#[derive(Debug, Args)]
pub(super) struct AdminReloadArgs {
    /// Show the changes without making them
    #[arg(long)]
    dry_run: bool,
}

impl AdminReloadArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let dry_run = self.dry_run;
        let reply = remote.client.call(ReloadSettings { dry_run }).await?;
        if let Some(refused) = &reply.refused {
            bail!(
                "the settings are wrong, so none was changed: {}",
                safe(refused)
            );
        }
        let lines = lines(&reply);
        if remote.output.is_json() || !lines.is_empty() {
            remote.output.result(&reply, |_| lines)?;
        } else {
            remote.output.note("no setting has changed");
        }
        if let Some(refused) = &reply.certificate_refused {
            bail!("the certificate cannot be used: {}", safe(refused));
        }
        Ok(())
    }
}

/// `limits.sessions: 10000 -> 500`
fn lines(reply: &ReloadReply) -> String {
    let line = |change: &SettingChange, note: &str| {
        let SettingChange { setting, from, to } = change;
        safe(&format!("{setting}: {from} -> {to}{note}")).into_owned()
    };
    let changed = reply.changed.iter().map(|change| line(change, ""));
    let later = reply.needs_restart.iter();
    let later = later.map(|change| line(change, " (after a restart)"));
    changed.chain(later).collect::<Vec<_>>().join("\n")
}

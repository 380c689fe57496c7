//! Reading the configuration again while the server runs.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::cli::serve_args::ServeArgs;
use crate::cli::service::ServiceArgs;
use crate::config::{Config, ReloadedConfig};
use crate::protocol::{ReloadReply, SettingChange};
use crate::server::{ReloadRequest, Server};
use crate::telemetry::{AUDIT, LogLevelHandle};

/// What SIGHUP reads, and what it changes.
#[derive(Debug)]
pub(super) struct Reloading {
    /// Where the settings come from.
    pub(super) serve: ServeArgs,
    pub(super) server: Server,
    pub(super) level: LogLevelHandle,
    pub(super) service: ServiceArgs,
}

impl Reloading {
    /// Does so whenever it is asked for, by a signal or an operator.
    pub(super) async fn whenever(
        self,
        signalled: Arc<Notify>,
        mut asked: mpsc::Receiver<ReloadRequest>,
    ) {
        loop {
            tokio::select! {
                () = signalled.notified() => {
                    self.run().await;
                }
                Some(ReloadRequest { dry_run, reply }) = asked.recv() => {
                    let outcome = if dry_run { self.look().await } else { self.run().await };
                    // The operator may have left.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// The settings that would be taken over.
    async fn look(&self) -> ReloadReply {
        match self.read().await {
            Ok(config) => reply_of(&self.server.config().reloaded(&config)),
            Err(refused) => ReloadReply {
                refused: Some(refused),
                ..ReloadReply::default()
            },
        }
    }

    /// The settings as they stand now, or what is wrong with them.
    async fn read(&self) -> Result<Config, String> {
        let serve = self.serve.clone();
        match spawn_blocking(move || serve.load()).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes over what can be taken over, and says in the log what that was. What is wrong changes
    /// nothing.
    async fn run(&self) -> ReloadReply {
        self.service.reloading();
        let config = match self.read().await {
            Ok(config) => config,
            Err(error) => {
                error!(
                    name: "configuration_refused",
                    error,
                    "the configuration is wrong; what was in force stays"
                );
                self.service.reloaded();
                warn_if_degraded(&self.server);
                return ReloadReply {
                    refused: Some(error),
                    ..ReloadReply::default()
                };
            }
        };
        let reload = self.server.reload(&config);
        // The configuration was checked: only a log that has ended can refuse.
        if let Err(error) = self.level.set(&reload.config.log.level) {
            error!(name: "log_level_refused", %error, "the level of the log stays as it was");
        }
        say(&reload);
        let mut reply = reply_of(&reload);
        if let Err(error) = self.server.reload_tls().await {
            error!(
                name: "certificate_refused",
                %error,
                "the certificate cannot be used; what was in use stays"
            );
            reply.certificate_refused = Some(error.to_string());
        }
        self.service.reloaded();
        warn_if_degraded(&self.server);
        reply
    }
}

fn reply_of(reload: &ReloadedConfig) -> ReloadReply {
    ReloadReply {
        changed: reload.changed.clone(),
        needs_restart: reload.needs_restart.clone(),
        ..ReloadReply::default()
    }
}

fn say(reload: &ReloadedConfig) {
    let names = |changes: &[SettingChange]| {
        let names = changes.iter().map(|change| &*change.setting);
        names.collect::<Vec<_>>().join(" ")
    };
    let changed = names(&reload.changed);
    let needs_restart = names(&reload.needs_restart);
    if !reload.needs_restart.is_empty() {
        warn!(
            name: "configuration_needs_restart",
            target: AUDIT,
            changed,
            needs_restart,
            "configuration read again; some settings need a restart"
        );
    } else if reload.changed.is_empty() {
        info!(name: "configuration_unchanged", "configuration read again; nothing changed");
    } else {
        info!(name: "configuration_changed", target: AUDIT, changed, "configuration read again");
    }
}

/// Says once more what was said when it happened: such a disk wants looking at.
pub(super) fn warn_if_degraded(server: &Server) {
    if server.is_degraded() {
        warn!(
            name: "degraded",
            "the disk has failed to keep something since the start; look at it"
        );
    }
}

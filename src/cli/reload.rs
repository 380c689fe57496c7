//! Reading the configuration again while the server runs.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::cli::serve_args::ServeArgs;
use crate::cli::service::ServiceManager;
use crate::config::{Config, ReloadedConfig};
use crate::protocol::{ReloadReply, SettingChange};
use crate::server::{ReloadRequest, Server};
use crate::telemetry::{AUDIT, LogLevelHandle};

/// Reads the configuration again on SIGHUP or on an operator's request.
#[derive(Debug)]
pub(super) struct Reloader {
    /// The sources of the settings.
    pub(super) serve: ServeArgs,
    pub(super) server: Server,
    pub(super) level: LogLevelHandle,
    pub(super) service: ServiceManager,
}

impl Reloader {
    /// Handles requests for as long as the runtime lives.
    pub(super) async fn run(
        self,
        signalled: Arc<Notify>,
        mut requests: mpsc::Receiver<ReloadRequest>,
    ) {
        loop {
            tokio::select! {
                () = signalled.notified() => {
                    self.reload().await;
                }
                Some(ReloadRequest { dry_run, reply }) = requests.recv() => {
                    let outcome = if dry_run { self.dry_run().await } else { self.reload().await };
                    // The operator may have disconnected.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    /// The settings that would change.
    async fn dry_run(&self) -> ReloadReply {
        match self.read().await {
            Ok(config) => reply_of(&self.server.config().reloaded(&config)),
            Err(refused) => ReloadReply {
                refused: Some(refused),
                ..ReloadReply::default()
            },
        }
    }

    /// The current settings of the file and the environment, or what is wrong with them.
    async fn read(&self) -> Result<Config, String> {
        let serve = self.serve.clone();
        match spawn_blocking(move || serve.load()).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Applies the settings that a running server can change, and logs the result. An invalid
    /// configuration changes nothing.
    async fn reload(&self) -> ReloadReply {
        self.service.reloading();
        let config = match self.read().await {
            Ok(config) => config,
            Err(error) => {
                error!(
                    name: "configuration_refused",
                    error,
                    "the configuration is invalid; the previous one stays in force"
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
        // The level is valid, so this fails only after the end of the log.
        if let Err(error) = self.level.set(&reload.config.log.level) {
            error!(name: "log_level_refused", %error, "the level of the log cannot be changed");
        }
        log_changes(&reload);
        let mut reply = reply_of(&reload);
        if let Err(error) = self.server.reload_tls().await {
            error!(
                name: "certificate_refused",
                %error,
                "the certificate cannot be used; the previous one stays in use"
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

fn log_changes(reload: &ReloadedConfig) {
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

/// Repeats the warning about a failed disk, at a reload and at the end.
pub(super) fn warn_if_degraded(server: &Server) {
    if server.is_degraded() {
        warn!(
            name: "degraded",
            "the disk has failed to store something since the start; check it"
        );
    }
}

//! Reading the configuration again while the server runs.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::serve::Serve;
use super::service::Service;
use crate::config::Reload;
use crate::server::Server;
use crate::telemetry::Level;

/// What SIGHUP reads, and what it changes.
#[derive(Debug)]
pub(super) struct Reloading {
    /// Where the settings come from.
    pub(super) serve: Serve,
    pub(super) server: Server,
    pub(super) level: Level,
    pub(super) service: Service,
}

impl Reloading {
    /// Does so whenever it is asked for.
    pub(super) async fn whenever(self, asked: Arc<Notify>) {
        loop {
            asked.notified().await;
            self.service.reloading();
            self.run().await;
            self.service.reloaded();
        }
    }

    /// Takes over what can be taken over, and says in the log what that was. What is wrong changes
    /// nothing.
    async fn run(&self) {
        let serve = self.serve.clone();
        match spawn_blocking(move || serve.load()).await {
            Ok(Ok(config)) => {
                let reload = self.server.reload(&config);
                // The configuration was checked: only a log that has ended can refuse.
                if let Err(error) = self.level.set(&reload.config.log.level) {
                    error!(
                        name: "log_level_refused",
                        %error,
                        "the level of the log stays as it was"
                    );
                }
                say(&reload);
                if let Err(error) = self.server.reload_tls().await {
                    error!(
                        name: "certificate_refused",
                        %error,
                        "the certificate can not be used; what was in use stays"
                    );
                }
            }
            Ok(Err(error)) => {
                error!(
                    name: "configuration_refused",
                    %error,
                    "the configuration is wrong; what was in force stays"
                );
            }
            Err(error) => error!(
                name: "configuration_unread",
                %error,
                "the configuration could not be read again"
            ),
        }
        warn_if_degraded(&self.server);
    }
}

fn say(reload: &Reload) {
    let changed = reload.changed.join(" ");
    let needs_restart = reload.needs_restart.join(" ");
    if !reload.needs_restart.is_empty() {
        warn!(
            name: "configuration_needs_restart",
            changed,
            needs_restart,
            "configuration read again; some settings need a restart"
        );
    } else if reload.changed.is_empty() {
        info!(name: "configuration_unchanged", "configuration read again; nothing changed");
    } else {
        info!(name: "configuration_changed", changed, "configuration read again");
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

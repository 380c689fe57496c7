//! `/readyz`: whether a load balancer should send clients to this server.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tracing::{info, warn};

use crate::ops::probe::{Probe, ProbeResult};
use crate::server::{Server, ServerStage};

/// The checks of readiness.
#[derive(Clone)]
struct Readiness {
    server: Server,
    /// Whether the data directory is writable, or why not.
    writes: Probe<Result<(), String>>,
    /// Whether the last check failed, which was logged.
    has_failed: Arc<AtomicBool>,
}

/// `/readyz` of a server.
pub(super) fn routes(server: &Server) -> Router {
    let store = server.store().clone();
    let try_write = move || store.try_write().map_err(|error| error.to_string());
    let readiness = Readiness {
        server: server.clone(),
        writes: Probe::new(try_write),
        has_failed: Arc::default(),
    };
    Router::new()
        .route("/readyz", get(readyz))
        .with_state(readiness)
}

/// `ready`, or each reason why not on a line of its own.
async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let reasons = readiness.reasons().await;
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let mut lines = String::new();
    for reason in reasons {
        let _ = writeln!(lines, "{reason}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

/// The response before the server exists.
pub(super) async fn starting() -> (StatusCode, &'static str) {
    (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
}

impl Readiness {
    async fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.server.stage() {
            ServerStage::Starting => reasons.push("starting".to_owned()),
            ServerStage::Serving => {}
            ServerStage::Draining => reasons.push("draining".to_owned()),
        }
        if self.server.messages().is_failing() {
            reasons.push("messages cannot be stored; the log says why".to_owned());
        }
        if !self.server.can_read_accounts() {
            // It was logged when it happened.
            reasons.push("the accounts cannot be read, so all requests are refused".to_owned());
        }
        let failure = match self.writes.result().await {
            ProbeResult::Known(Ok(())) => None,
            ProbeResult::Known(Err(error)) => {
                Some(format!("the data directory is not writable: {error}"))
            }
            ProbeResult::NotYet => {
                // The disk may just be slow, so this is not logged.
                reasons.push("the data directory has not responded yet".to_owned());
                return reasons;
            }
            ProbeResult::Hangs => Some("the data directory does not respond".to_owned()),
        };
        self.log_transition(failure.as_deref());
        reasons.extend(failure);
        reasons
    }

    /// Logs the first failure, and the first success after it.
    fn log_transition(&self, failure: Option<&str>) {
        let before = self.has_failed.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(reason) if !before => {
                warn!(name: "not_ready", reason, "not ready");
            }
            None if before => info!(name: "ready_again", "the data directory is writable again"),
            _ => {}
        }
    }
}

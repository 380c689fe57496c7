//! The operators' address: health, metrics and the status page, over HTTP.
//!
//! It only shows, and changes nothing. Whoever can connect may look, which is why it is on the
//! machine itself unless the settings say otherwise.

mod health;
mod history;
mod host;
mod http;
mod log_lines;
mod metrics;
mod page;
mod probe;
mod quantiles;
mod ready;
mod room_limit;
mod server_sent_events;
mod snapshot;

use std::future::Future;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::routing::get;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ops::snapshot::SnapshotFeed;
use crate::server::Server;
use crate::telemetry::LostLines;

/// Answers until `stop`: that the process is alive, and all else once there is a `server`.
/// `lost_lines` tells how many lines of the log were lost.
pub async fn run(
    listener: TcpListener,
    server: impl Future<Output = Server>,
    lost_lines: impl Fn() -> LostLines + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let made = Arc::new(OnceLock::new());
    let making = async {
        let server = server.await;
        let board = SnapshotFeed::new(server.clone());
        let routes = routes(server, Arc::new(lost_lines)).merge(page_routes(board.clone()));
        let _ = made.set(routes);
        board.keep().await;
    };
    tokio::select! {
        () = http::serve(&listener, at_any_time(Arc::clone(&made)), stop) => {}
        () = making => {}
    }
}

/// What there is at the start, until there is more: a connection that was made before sees it, too.
fn at_any_time(made: Arc<OnceLock<Router>>) -> Router {
    let at_start = routes_at_start();
    Router::new().fallback(move |request: Request| {
        let routes = made.get().unwrap_or(&at_start).clone();
        TowerToHyperService::new(routes).call(request)
    })
}

fn routes_at_start() -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(ready::starting))
}

fn routes(server: Server, lost_lines: metrics::TellLostLines) -> Router {
    let (ready, metrics) = (ready::routes(&server), metrics::routes(&server, lost_lines));
    Router::new()
        .route("/healthz", get(health::healthz))
        .with_state(server)
        .merge(ready)
        .merge(metrics)
}

/// What people look at. It names users and files, so no other site may read it in their browsers.
fn page_routes(board: SnapshotFeed) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/live", get(server_sent_events::live))
        .layer(from_fn(host::guard))
        .with_state(board)
}

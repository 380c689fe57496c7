//! The operators' address: health, metrics and the status page, over HTTP.
//!
//! It is read-only. Every client that can connect may read it, so it listens on the machine itself
//! unless the settings say otherwise.

mod disk_space;
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
mod server_sent_events;
mod snapshot;

use std::future::Future;
use std::net::SocketAddr;
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

/// Serves HTTP until `stop`: at first only the health of the process, and everything once `server`
/// resolves, which listens on `address`. `lost_lines` returns the number of lost log lines.
pub async fn run(
    listener: TcpListener,
    address: SocketAddr,
    server: impl Future<Output = Server>,
    lost_lines: impl Fn() -> LostLines + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let all_routes = Arc::new(OnceLock::new());
    let feed_snapshots = async {
        let server = server.await;
        let feed = SnapshotFeed::new(server.clone(), address.port());
        let routes = routes(server, Arc::new(lost_lines)).merge(page_routes(feed.clone()));
        let _ = all_routes.set(routes);
        feed.run().await;
    };
    tokio::select! {
        () = http::serve(&listener, routes_from_start(Arc::clone(&all_routes)), stop) => {}
        () = feed_snapshots => {}
    }
}

/// Serves the routes of the start until all routes exist, on existing connections as well.
fn routes_from_start(all_routes: Arc<OnceLock<Router>>) -> Router {
    let at_start = routes_at_start();
    Router::new().fallback(move |request: Request| {
        let routes = all_routes.get().unwrap_or(&at_start).clone();
        TowerToHyperService::new(routes).call(request)
    })
}

fn routes_at_start() -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(ready::starting))
}

fn routes(server: Server, lost_lines: metrics::LostLinesFn) -> Router {
    let (ready, metrics) = (ready::routes(&server), metrics::routes(&server, lost_lines));
    Router::new()
        .route("/healthz", get(health::healthz))
        .with_state(server)
        .merge(ready)
        .merge(metrics)
}

/// The status page. It names users and files, so no other site may read it in a browser.
fn page_routes(feed: SnapshotFeed) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/live", get(server_sent_events::live))
        .layer(from_fn(host::guard))
        .with_state(feed)
}

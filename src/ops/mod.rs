//! The operators' address: health, metrics and the status page, over HTTP.
//!
//! It only shows, and changes nothing. Whoever can connect may look, which is why it is on the
//! machine itself unless the settings say otherwise.

mod health;
mod http;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// Answers until `stop`.
pub async fn run(listener: TcpListener, server: Server, stop: CancellationToken) {
    http::serve(listener, routes(server), stop).await;
}

fn routes(server: Server) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .with_state(server)
}

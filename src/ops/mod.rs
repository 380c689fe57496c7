//! The operators' address: health, metrics and the status page, over HTTP.
//!
//! It only shows, and changes nothing. Whoever can connect may look, which is why it is on the
//! machine itself unless the settings say otherwise.

mod board;
mod health;
mod history;
mod host;
mod http;
mod lines;
mod live;
mod page;
mod quantiles;
mod room;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::board::Board;
use crate::server::Server;

/// Answers until `stop`.
pub async fn run(listener: TcpListener, server: Server, stop: CancellationToken) {
    let board = Board::new(server.clone());
    let routes = routes(server).merge(page_routes(board.clone()));
    tokio::select! {
        () = http::serve(listener, routes, stop) => {}
        () = board.keep() => {}
    }
}

fn routes(server: Server) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .with_state(server)
}

/// What people look at. It names users and files, so no other site may read it in their browsers.
fn page_routes(board: Board) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/live", get(live::live))
        .layer(from_fn(host::guard))
        .with_state(board)
}

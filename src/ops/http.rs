//! HTTP within bounds: so many connections, so long for a request to come.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at once. Further ones wait.
const CONNECTIONS: usize = 64;

/// For the head of a request to come, and between two requests of a connection.
const HEAD: Duration = Duration::from_secs(10);

/// For the other side to take what it was sent.
const UNTAKEN: Duration = Duration::from_secs(30);

/// For an answer that has begun, at the end.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// Before a connection is accepted again where that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers what `routes` has until `stop`; what is being answered then may end, if it does at once.
pub(super) async fn serve(listener: &TcpListener, routes: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepting = stop.run_until_cancelled(accept(listener, &room));
        let Some((stream, permit)) = accepting.await else {
            break;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        connections.spawn(async move {
            answer(stream, routes, &stop).await;
            drop(permit);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let permit = Arc::clone(room).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                warn!(
                    name: "ops_not_accepting",
                    %error,
                    "can not accept connections of operators for now"
                );
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, routes: Router, stop: &CancellationToken) {
    // Who takes nothing any more has gone: what a page is told goes on for ever otherwise.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut serving = pin!(serving);
    let served = if let Some(served) = stop.run_until_cancelled(serving.as_mut()).await {
        served
    } else {
        serving.as_mut().graceful_shutdown();
        timeout(LAST_ANSWER, serving).await.unwrap_or(Ok(()))
    };
    if let Err(error) = served {
        debug!(name: "ops_connection_failed", %error, "a connection of an operator has failed");
    }
}

//! An HTTP server with bounds on the number of connections and on the time for a request.
//!
//! A connection is accepted immediately. At the limit, the oldest connection without a request is closed
//! for it, remote ones before those from this machine, so idle connections block no others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// The most connections.
const MAX_CONNECTIONS: usize = 64;

/// Timeout for the head of a request, and between two requests of a connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection fails if sent data is not acknowledged for this long.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a started response may take after the stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(100);

/// Pause after a failed accept.
const ACCEPT_BACK_OFF: Duration = Duration::from_secs(1);

/// Time between two log lines about failed accepts.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// Serves `routes` until `stop`; responses that have started may end within [`SHUTDOWN_GRACE`].
pub(super) async fn serve(listener: &TcpListener, routes: Router, stop: CancellationToken) {
    let connections = Arc::new(HttpConnections::default());
    let tasks = TaskTracker::new();
    let mut last_warning = None;
    loop {
        let accepting = stop.run_until_cancelled(accept(listener, &mut last_warning));
        let Some((stream, address)) = accepting.await else {
            break;
        };
        let (connection, evicted) = connections.register(&address);
        let (routes, stop) = (routes.clone(), stop.clone());
        tasks.spawn(async move {
            let answering = serve_connection(stream, routes, &connection, &stop);
            if evicted.run_until_cancelled(answering).await.is_none() {
                debug!(name: "ops_evicted", "closed an idle connection of an operator to make room for others");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn accept(
    listener: &TcpListener,
    last_warning: &mut Option<Instant>,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if last_warning.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
                    *last_warning = Some(Instant::now());
                    warn!(
                        name: "ops_not_accepting",
                        %error,
                        "cannot accept connections of operators for now"
                    );
                }
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    routes: Router,
    connection: &HttpConnection,
    stop: &CancellationToken,
) {
    // Otherwise the events for a client that has disappeared would continue forever.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT));
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        connection.mark_active();
        routes.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let served = if let Some(served) = stop.run_until_cancelled(serving.as_mut()).await {
        served
    } else {
        serving.as_mut().graceful_shutdown();
        timeout(SHUTDOWN_GRACE, serving).await.unwrap_or(Ok(()))
    };
    if let Err(error) = served {
        debug!(name: "ops_connection_failed", %error, "a connection of an operator has failed");
    }
}

/// The open connections.
#[derive(Debug, Default)]
struct HttpConnections(Mutex<HttpConnectionsState>);

#[derive(Debug, Default)]
struct HttpConnectionsState {
    /// By number, the oldest first.
    open: BTreeMap<u64, HttpConnectionEntry>,
    next_number: u64,
}

#[derive(Debug)]
struct HttpConnectionEntry {
    evicted: CancellationToken,
    is_local: bool,
    has_requested: bool,
}

/// Registers a connection until it is dropped.
#[derive(Debug)]
struct HttpConnection {
    connections: Arc<HttpConnections>,
    number: u64,
}

impl HttpConnections {
    /// Adds a connection. At the limit, another one is evicted.
    fn register(self: &Arc<Self>, address: &SocketAddr) -> (HttpConnection, CancellationToken) {
        let mut state = self.lock();
        if state.open.len() >= MAX_CONNECTIONS {
            let open = state.open.iter();
            let first =
                open.min_by_key(|(number, entry)| (entry.has_requested, entry.is_local, **number));
            if let Some(number) = first.map(|(number, _)| *number)
                && let Some(entry) = state.open.remove(&number)
            {
                entry.evicted.cancel();
            }
        }
        let (number, evicted) = (state.next_number, CancellationToken::new());
        state.next_number += 1;
        let entry = HttpConnectionEntry {
            evicted: evicted.clone(),
            is_local: address.ip().to_canonical().is_loopback(),
            has_requested: false,
        };
        state.open.insert(number, entry);
        let connection = HttpConnection {
            connections: Arc::clone(self),
            number,
        };
        (connection, evicted)
    }

    fn lock(&self) -> MutexGuard<'_, HttpConnectionsState> {
        self.0.lock()
    }
}

impl HttpConnection {
    fn mark_active(&self) {
        if let Some(entry) = self.connections.lock().open.get_mut(&self.number) {
            entry.has_requested = true;
        }
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_without_a_request_is_evicted_first_and_local_ones_last() {
        let connections = Arc::new(HttpConnections::default());
        let (local, remote): (SocketAddr, SocketAddr) = (
            "127.0.0.1:1".parse().expect("an address"),
            "192.0.2.1:1".parse().expect("an address"),
        );
        let check = connections.register(&local);
        let page = connections.register(&remote);
        page.0.mark_active();
        let silent: Vec<_> = (2..MAX_CONNECTIONS)
            .map(|_| connections.register(&remote))
            .collect();
        let next: Vec<_> = (2..MAX_CONNECTIONS)
            .map(|_| connections.register(&remote))
            .collect();
        assert!(silent.iter().all(|(_, evicted)| evicted.is_cancelled()));
        assert!(!check.1.is_cancelled() && !page.1.is_cancelled());
        for (connection, _) in &next {
            connection.mark_active();
        }
        let last = connections.register(&remote);
        assert!(check.1.is_cancelled(), "it is the oldest without a request");
        assert!(!page.1.is_cancelled() && !last.1.is_cancelled());
        drop((check, page, silent, next, last));
        assert!(connections.lock().open.is_empty());
    }
}

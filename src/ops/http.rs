//! HTTP within bounds: so many connections, so long for a request to come.
//!
//! A connection is taken at once, whoever has others. Where there are as many as there may be, the
//! oldest that has asked nothing yet goes for it, one from elsewhere before one from this machine; so
//! those who send nothing keep nobody from asking.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// For the head of a request to come, and between two requests of a connection.
const HEAD: Duration = Duration::from_secs(10);

/// For the other side to take what it was sent.
const UNTAKEN: Duration = Duration::from_secs(30);

/// For an answer that has begun, at the end.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// Before a connection is accepted again where that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two lines of the log that say so.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// Answers what `routes` has until `stop`; what is being answered then may end, if it does at once.
pub(super) async fn serve(listener: &TcpListener, routes: Router, stop: CancellationToken) {
    let connections = Arc::new(Connections::default());
    let tasks = TaskTracker::new();
    let mut told = None;
    loop {
        let accepting = stop.run_until_cancelled(accept(listener, &mut told));
        let Some((stream, address)) = accepting.await else {
            break;
        };
        let (connection, evicted) = connections.enter(&address);
        let (routes, stop) = (routes.clone(), stop.clone());
        tasks.spawn(async move {
            let answering = answer(stream, routes, &connection, &stop);
            if evicted.run_until_cancelled(answering).await.is_none() {
                debug!(name: "ops_evicted", "closed a connection of an operator: others need its place");
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener, told: &mut Option<Instant>) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    *told = Some(Instant::now());
                    warn!(
                        name: "ops_not_accepting",
                        %error,
                        "can not accept connections of operators for now"
                    );
                }
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(
    stream: TcpStream,
    routes: Router,
    connection: &Connection,
    stop: &CancellationToken,
) {
    // Who takes nothing any more has gone: what a page is told goes on for ever otherwise.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNTAKEN));
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        connection.has_asked();
        routes.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
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

/// The connections that are there.
#[derive(Debug, Default)]
struct Connections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By their number, the oldest first.
    open: BTreeMap<u64, Entry>,
    numbers: u64,
}

#[derive(Debug)]
struct Entry {
    evicted: CancellationToken,
    is_local: bool,
    has_asked: bool,
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
struct Connection {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    /// Takes one more, for which another one may have to go.
    fn enter(self: &Arc<Self>, address: &SocketAddr) -> (Connection, CancellationToken) {
        let mut state = self.lock();
        if state.open.len() >= CONNECTIONS {
            let open = state.open.iter();
            let first =
                open.min_by_key(|(number, entry)| (entry.has_asked, entry.is_local, **number));
            if let Some(number) = first.map(|(number, _)| *number)
                && let Some(entry) = state.open.remove(&number)
            {
                entry.evicted.cancel();
            }
        }
        let (number, evicted) = (state.numbers, CancellationToken::new());
        state.numbers += 1;
        let entry = Entry {
            evicted: evicted.clone(),
            is_local: address.ip().to_canonical().is_loopback(),
            has_asked: false,
        };
        state.open.insert(number, entry);
        let connection = Connection {
            connections: Arc::clone(self),
            number,
        };
        (connection, evicted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn has_asked(&self) {
        if let Some(entry) = self.connections.lock().open.get_mut(&self.number) {
            entry.has_asked = true;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_has_asked_nothing_goes_first_and_this_machine_last() {
        let connections = Arc::new(Connections::default());
        let (local, remote): (SocketAddr, SocketAddr) = (
            "127.0.0.1:1".parse().expect("an address"),
            "192.0.2.1:1".parse().expect("an address"),
        );
        let check = connections.enter(&local);
        let page = connections.enter(&remote);
        page.0.has_asked();
        let silent: Vec<_> = (2..CONNECTIONS)
            .map(|_| connections.enter(&remote))
            .collect();
        let next: Vec<_> = (2..CONNECTIONS)
            .map(|_| connections.enter(&remote))
            .collect();
        assert!(silent.iter().all(|(_, evicted)| evicted.is_cancelled()));
        assert!(!check.1.is_cancelled() && !page.1.is_cancelled());
        for (connection, _) in &next {
            connection.has_asked();
        }
        let last = connections.enter(&remote);
        assert!(check.1.is_cancelled(), "it has asked nothing for long");
        assert!(!page.1.is_cancelled() && !last.1.is_cancelled());
        drop((check, page, silent, next, last));
        assert!(connections.lock().open.is_empty());
    }
}

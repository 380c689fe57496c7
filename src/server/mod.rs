//! The server: a listener, one task per connection, and the commands.
//!
//! ```text
//! listener ─► session ─► commands/x ─► storage (on blocking threads)
//!                │ ▲          │
//!                │ └── values ┘
//!                └─► outbox ─► writer ─► socket
//! ```
//!
//! Commands return values; only the session's outbox reaches the socket.

mod active;
mod commands;
mod disk;
mod dispatch;
mod error;
mod hashing;
mod housekeeping;
mod job;
mod listener;
mod member;
mod peer;
mod receiving;
mod serve;
mod session;
mod sniff;
mod transfers;
mod visitor;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use self::error::CommandError;
pub use self::peer::Peer;

use self::active::ActivePuts;
use self::disk::Disks;
use crate::accounts::Accounts;
use crate::config::Config;
use crate::storage::Store;

/// Name and version, as clients see it.
pub const SERVER: &str = concat!("haul/", env!("CARGO_PKG_VERSION"));

/// A server, ready to run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    accounts: Accounts,
    store: Store,
    config: watch::Sender<Arc<Config>>,
    /// Sessions that may still be opened.
    sessions: Arc<Semaphore>,
    /// Turns for reading files only to hash them.
    digests: Semaphore,
    disks: Disks,
    puts: Arc<ActivePuts>,
}

impl Shared {
    /// The settings as they are now: not to be kept for longer than one step of the work.
    fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
}

/// The two steps of stopping a server.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// No new session and no new request; what runs may end.
    pub drain: CancellationToken,
    /// Everything ends now.
    pub stop: CancellationToken,
}

impl Server {
    /// A server for these accounts and files.
    #[must_use]
    pub fn new(accounts: Accounts, store: Store, config: Config) -> Self {
        store.set(housekeeping::settings(&config));
        let limits = &config.limits;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                accounts,
                store,
                sessions: Arc::new(Semaphore::new(limits.sessions)),
                digests: Semaphore::new(cores),
                disks: Disks::new(limits.disk_threads),
                puts: Arc::default(),
                config: watch::Sender::new(Arc::new(config)),
            }),
        }
    }

    /// Accepts connections until `shutdown`, then lets the sessions end: each is told goodbye and
    /// may finish its transfers for the configured time. Returns when the last one is gone.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        tokio::select! {
            () = listener::run(self, listener, shutdown) => {}
            () = housekeeping::run(&self.shared) => {}
        }
    }

    /// Serves one connection over any byte stream, until either side ends it.
    pub async fn serve<R, W>(&self, reader: R, writer: W, peer: Peer, shutdown: Shutdown)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        serve::serve(&self.shared, reader, writer, peer, shutdown).await;
    }
}

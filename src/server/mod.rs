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

mod commands;
mod disk;
mod dispatch;
mod error;
mod hashing;
mod job;
mod listener;
mod member;
mod peer;
mod serve;
mod session;
mod sniff;
mod tls;
mod transfers;
mod visitor;

use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

pub use self::error::CommandError;
pub use self::peer::Peer;
pub use self::tls::{ServerCertificate, TlsError};

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
    /// What new connections are encrypted with; nothing until it was loaded.
    tls: watch::Sender<Option<tls::Identity>>,
}

impl Shared {
    /// The settings as they are now: not to be kept for longer than one step of the work.
    fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// What a connection that begins now is encrypted with.
    fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let identity = self.tls.borrow();
        identity.as_ref().map(tls::Identity::config)
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
        let limits = &config.limits;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared {
                accounts,
                store,
                sessions: Arc::new(Semaphore::new(limits.sessions)),
                digests: Semaphore::new(cores),
                disks: Disks::new(limits.disk_threads),
                config: watch::Sender::new(Arc::new(config)),
                tls: watch::Sender::new(None),
            }),
        }
    }

    /// Reads the certificate that the settings name, or that of the data directory, which is made
    /// if it is missing. Connections that are made from now on see it. Until the first call that
    /// succeeds the server speaks no TLS.
    ///
    /// # Errors
    /// [`TlsError`] if it can not be used, or has expired while another is in use. What was in use
    /// before stays in use.
    ///
    /// # Panics
    /// If the thread that reads it panics.
    pub async fn reload_tls(&self) -> Result<ServerCertificate, TlsError> {
        let config = self.shared.config();
        let loading = spawn_blocking(move || tls::Identity::load(&config.tls, &config.server.data));
        let mut identity = loading.await.expect("reading does not panic")?;
        if self.shared.tls.borrow().is_some() {
            identity = identity.unexpired(Timestamp::now())?;
        }
        let certificate = identity.certificate.clone();
        certificate.log();
        self.shared.tls.send_replace(Some(identity));
        Ok(certificate)
    }

    /// Accepts connections until `shutdown`, then lets the sessions end: each is told goodbye and
    /// may finish its transfers for the configured time. Returns when the last one is gone.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        listener::run(self, listener, shutdown).await;
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

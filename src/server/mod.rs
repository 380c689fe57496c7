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
mod arrival;
mod bandwidth;
mod commands;
mod disk;
mod dispatch;
mod error;
mod hashing;
mod housekeeping;
mod job;
mod limits;
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
use self::arrival::Refusals;
use self::bandwidth::Bandwidths;
use self::disk::Disks;
use self::limits::{Door, Guesses, LoginQueue, Seat};
use crate::accounts::Accounts;
use crate::config::{Config, Reload};
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
    /// Who is in.
    door: Arc<Door>,
    /// Logins that wait for their password to be hashed.
    logins: LoginQueue,
    /// Logins that failed.
    guesses: Guesses,
    refusals: Refusals,
    /// Turns for reading files only to hash them.
    digests: Semaphore,
    disks: Disks,
    puts: Arc<ActivePuts>,
    bandwidths: Bandwidths,
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
        let hashing = match limits.hashing {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            most => most,
        };
        Self {
            shared: Arc::new(Shared {
                accounts,
                store,
                door: Arc::default(),
                logins: LoginQueue::default(),
                guesses: Guesses::default(),
                refusals: Refusals::default(),
                digests: Semaphore::new(hashing),
                disks: Disks::new(limits.disk_threads),
                puts: Arc::default(),
                bandwidths: Bandwidths::default(),
                config: watch::Sender::new(Arc::new(config)),
            }),
        }
    }

    /// Accepts connections until `shutdown`, then lets the sessions end: each is told goodbye and
    /// may finish its transfers for the configured time. Returns when the last one is gone.
    pub async fn run(&self, listener: TcpListener, shutdown: CancellationToken) {
        let shutdown = Shutdown {
            drain: shutdown,
            stop: CancellationToken::new(),
        };
        self.run_until(listener, shutdown).await;
    }

    /// As [`Self::run`], with both steps of the shutdown in the caller's hand: `stop` cuts off what
    /// still runs. It is cancelled by itself at the end of the time for that.
    pub async fn run_until(&self, listener: TcpListener, shutdown: Shutdown) {
        tokio::select! {
            () = listener::run(self, listener, shutdown) => {}
            () = housekeeping::run(&self.shared) => {}
        }
    }

    /// Takes over those settings of `new` that can change while it runs.
    #[must_use = "it says what was not taken over"]
    pub fn reload(&self, new: &Config) -> Reload {
        let reload = self.config().reloaded(new);
        let config = Arc::new(reload.config.clone());
        self.shared.config.send_replace(config);
        reload
    }

    /// Whether the disk has failed to keep something since the start. What was acknowledged is
    /// safe; the disk wants looking at.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.shared.store.is_degraded()
    }

    /// The settings that are in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    /// Serves one connection over any byte stream, until either side ends it.
    pub async fn serve<R, W>(&self, reader: R, writer: W, peer: Peer, shutdown: Shutdown)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let seat = Box::new(Seat::apart());
        serve::serve(&self.shared, reader, writer, peer, seat, shutdown).await;
    }
}

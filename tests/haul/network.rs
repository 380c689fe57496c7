//! Transfers over a simulated network that delays every message and breaks connections. They must
//! end with the same bytes.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use haul::accounts::{Accounts, HashingCost, NewUser};
use haul::client::{Client, ClientError, GetOptions, PutOptions};
use haul::config::Config;
use haul::messages::Messages;
use haul::protocol::{Algorithm, Hasher, Secret};
use haul::server::{Peer, Server, Shutdown};
use haul::storage::{SpaceLimits, Store};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::sync::Notify;
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

use crate::harness::PASSWORD;

const PORT: u16 = 9000;

/// The broken connections that each simulation must survive.
const CUTS: u32 = 6;

/// The longest delay of a message.
const LATENCY: Duration = Duration::from_millis(120);

/// The segments in transit per direction: a few chunks, so that a file needs many round trips.
const WINDOW: usize = 6;

#[test]
#[ignore = "its clock runs ahead on a busy machine; docs/TESTING.md says how to run it"]
fn a_file_is_transferred_unchanged_over_a_network_that_delays_and_breaks_connections() {
    for seed in 0..4 {
        let content: Bytes = (0..4_000_000_u32)
            .map(|at| (at ^ (at >> 9)).to_le_bytes()[0])
            .collect();
        Crossing::new(seed).run(|| async move {
            while let Err(error) = put(&content).await {
                may_happen(&error);
            }
            let mut down = PartialDownload::default();
            while let Err(error) = down.get().await {
                may_happen(&error);
            }
            assert!(down.bytes == content, "other bytes came back");
        });
    }
}

/// Resumes the upload.
async fn put(content: &Bytes) -> Result<(), ClientError> {
    let client = connect().await?;
    let options = PutOptions {
        size: Some(content.len() as u64),
        resume: true,
        ..PutOptions::default()
    };
    let mut upload = client.put("a", options).await?;
    let begin = upload.begun().await?;
    let offset = usize::try_from(begin.offset).expect("within the file");
    let mut hasher = Hasher::new(options.algorithm);
    hasher.update(&content[..offset]);
    if let Some(prefix) = begin.prefix {
        assert_eq!(prefix, hasher.clone().finish(), "up to {offset}");
    }
    upload.continue_at(begin.offset, hasher);
    upload.write(content.slice(offset..)).await?;
    upload.finish().await.map(drop)
}

/// The received part of a file.
#[derive(Default)]
struct PartialDownload {
    bytes: Vec<u8>,
    version: Option<String>,
}

impl PartialDownload {
    /// Resumes the download.
    async fn get(&mut self) -> Result<(), ClientError> {
        let client = connect().await?;
        let mut seen = Hasher::new(Algorithm::default());
        seen.update(&self.bytes);
        let options = GetOptions {
            offset: self.bytes.len() as u64,
            version: self.version.clone(),
            hashed: Some(seen),
            ..GetOptions::default()
        };
        let mut download = client.get("a", options).await?;
        self.version = Some(download.begin().version.clone());
        while let Some(chunk) = download.chunk().await {
            self.bytes.extend_from_slice(&chunk);
        }
        download.finish().await.map(drop)
    }
}

/// Panics unless the error is a broken connection or a timeout. Timeouts are possible because the
/// simulated clock advances while the database works on a separate thread.
fn may_happen(error: &ClientError) {
    let cut = matches!(
        error,
        ClientError::Lost(_) | ClientError::Connect { .. } | ClientError::TimedOut(_)
    );
    assert!(cut, "{error}");
}

/// A server, a client, and a relay between them that breaks connections.
struct Crossing {
    seed: u64,
    data: TempDir,
}

impl Crossing {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            data: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Runs `work` while connections are broken.
    fn run<F: Future<Output = ()> + 'static>(&self, work: impl FnOnce() -> F + 'static) {
        let mut builder = Builder::new();
        builder
            .rng_seed(self.seed)
            .simulation_duration(Duration::from_hours(24))
            .tick_duration(Duration::from_millis(5))
            .max_message_latency(LATENCY)
            .tcp_capacity(WINDOW);
        let mut sim = builder.build();
        let data = self.data.path().to_owned();
        sim.host("server", move || serve(data.clone()));
        let cut = Arc::new(Notify::new());
        let cutter = Arc::clone(&cut);
        sim.host("relay", move || relay(Arc::clone(&cutter)));
        let begins = Rc::new(Cell::new(false));
        let began = Rc::clone(&begins);
        sim.client("client", async move {
            while connect().await.is_err() {
                // The server may not have started yet.
                sleep(LATENCY).await;
            }
            began.set(true);
            work().await;
            Ok(())
        });
        cut_now_and_then(&mut sim, self.seed, &begins, &cut);
    }
}

/// Steps the simulation until the client has finished. Breaks connections at moments that the seed
/// determines, up to the given number.
fn cut_now_and_then(sim: &mut Sim<'_>, seed: u64, begins: &Cell<bool>, cut: &Notify) {
    let mut cuts = (0..CUTS).map(|number| {
        let spread = (seed * 7919 + u64::from(number) * 104_729) % 2_500;
        Duration::from_millis(500 + spread)
    });
    let mut next = None;
    let mut left = CUTS;
    while !sim.step().expect("the client is content") {
        if next.is_some_and(|next| sim.elapsed() > next) {
            cut.notify_waiters();
            left -= 1;
            next = None;
        }
        if next.is_none() && begins.get() {
            next = cuts.next().map(|wait| sim.elapsed() + wait);
        }
    }
    assert_eq!(left, 0, "all was done before it was cut {CUTS} times");
}

async fn serve(data: PathBuf) -> turmoil::Result {
    let accounts = Accounts::open(&data).await?;
    let accounts = accounts.with_hashing_cost(HashingCost::MIN);
    let new = NewUser {
        admin: false,
        limits: SpaceLimits::default(),
    };
    let password = Secret::new(PASSWORD.into());
    accounts.add_user(&"alice".parse()?, &password, new).await?;
    let mut config = Config::default();
    // The simulated clock advances while the database works on a separate thread.
    config.limits.login_timeout = Duration::from_hours(1);
    let server = Server::new(
        accounts,
        Store::open(&data)?,
        Messages::open(&data).await?,
        config,
    );
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (reader, writer) = stream.into_split();
        let server = server.clone();
        tokio::spawn(async move {
            server
                .serve(reader, writer, Peer::in_process(), Shutdown::default())
                .await;
        });
    }
}

/// Forwards bytes in both directions until the connection is cut.
async fn relay(cut: Arc<Notify>) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (mut near, _) = listener.accept().await?;
        let cut = Arc::clone(&cut);
        tokio::spawn(async move {
            let mut far = TcpStream::connect(("server", PORT)).await?;
            tokio::select! {
                copied = copy_bidirectional(&mut near, &mut far) => copied.map(drop),
                () = cut.notified() => Ok(()),
            }
        });
    }
}

async fn connect() -> Result<Client, ClientError> {
    let stream = TcpStream::connect(("relay", PORT)).await;
    let stream = stream.map_err(|error| ClientError::Connect {
        server: "relay".into(),
        error,
    })?;
    let client = Client::from_stream(stream);
    let password = Secret::new(PASSWORD.into());
    client.login("alice", &password).await?;
    Ok(client)
}

//! `haul bench`

use std::io::{self, Read};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use data_encoding::HEXLOWER;
use serde::Serialize;
use tokio::time::timeout;

use crate::cli::events::EventDisplay;
use crate::cli::exit::Interrupted;
use crate::cli::global_options::GlobalOptions;
use crate::cli::interrupt::{interruption, unless_interrupted};
use crate::cli::output::{Output, safe, size};
use crate::cli::progress::Bar;
use crate::cli::remote_session;
use crate::cli::remote_session::ConnectMethod;
use crate::cli::table::table;
use crate::client::{Client, ClientError, FileOptions, Progress};
use crate::protocol::{DfReply, ErrorCode, IfExists};

/// The size of the first file. A smaller one would measure nothing useful.
const MIN_BYTES: u64 = 256 * 1024;

/// The largest file, even if there is more free space.
const MAX_BYTES: u64 = 1 << 30;

/// Each file is larger than the previous one by this factor, until a transfer takes long enough.
const GROWTH: u64 = 4;

/// The most round trips that are measured.
const MAX_PINGS: usize = 500;

/// The time to remove the file after a failed measurement.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The length of the random block that the file repeats.
const BLOCK_BYTES: usize = 1 << 20;

/// Measure the connection to the server
///
/// Measures the round-trip time, and the rate of an upload and a download. The transfers are ordinary
/// ones: the digest is compared at both ends, and the server syncs the file to its disk. The file has
/// random content and a unique name in your home, grows with the speed of the connection to at most 1 GiB,
/// and is removed afterwards.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// The approximate duration of each measurement, in seconds
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// The measurements, as printed by `--json`.
#[derive(Serialize)]
struct Measurements {
    latency: PingLatency,
    up: Rate,
    down: Rate,
}

/// The times from a request to its reply.
#[derive(Serialize)]
struct PingLatency {
    answers: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// The last transfer in one direction.
#[derive(Clone, Copy, Serialize)]
struct Rate {
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
}

/// A running measurement.
struct Benchmark<'a> {
    client: Client,
    output: Output,
    /// The path of the file on the server.
    path: &'a str,
    /// The time for each measurement.
    time: Duration,
    /// The largest file that fits.
    max_bytes: u64,
}

impl BenchArgs {
    pub(super) async fn run(self, global: &GlobalOptions, output: Output) -> anyhow::Result<()> {
        let opened =
            unless_interrupted(remote_session::open(global, EventDisplay::Nothing)).await?;
        let path = fresh_path()?;
        let (client, way) = (opened.client, opened.way);
        let measured = tokio::select! {
            measured = self.measure(&client, &path, output) => measured,
            signal = interruption() => {
                signal?;
                Err(Interrupted { kept: false }.into())
            }
        };
        if measured.is_err() {
            // Once the session has ended, a running upload has either published the file or not.
            remote_session::leave(&client).await;
            clean_up(&way, &path, output).await;
        }
        let measured = measured?;
        remote_session::leave(&client).await;
        output.result(&measured, describe)
    }

    async fn measure(
        &self,
        client: &Client,
        path: &str,
        output: Output,
    ) -> anyhow::Result<Measurements> {
        let df = client.df().await?;
        let max_bytes = free_space(&df).min(MAX_BYTES);
        if max_bytes < MIN_BYTES {
            bail!(
                "your home has {} of free space, but the measurement needs {}; \
                 `haul df` shows the used space",
                size(max_bytes),
                size(MIN_BYTES)
            );
        }
        let benchmark = Benchmark {
            client: client.clone(),
            output,
            path,
            time: Duration::from_secs(self.seconds.into()),
            max_bytes,
        };
        output.note("measuring the round-trip time, an upload and a download");
        let latency = benchmark.latency().await?;
        let up = benchmark.up().await?;
        let down = benchmark.down(up.bytes).await?;
        client.rm(path, false).await?;
        if up.bytes == max_bytes && max_bytes < MAX_BYTES {
            let max_bytes = size(max_bytes);
            output.note(&format!("the free space limited the file to {max_bytes}"));
        }
        Ok(Measurements { latency, up, down })
    }
}

/// A path that does not exist, because it is random.
fn fresh_path() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("cannot get random bytes from the system")?;
    Ok(format!("/.haul-bench-{}", HEXLOWER.encode(&random)))
}

/// The bytes that may be stored: at most half of the free disk space, because other users write, too.
fn free_space(df: &DfReply) -> u64 {
    if df.files_limit.is_some_and(|limit| df.files >= limit) {
        return 0;
    }
    let quota = df.limit.map(|limit| limit.saturating_sub(df.used));
    quota.unwrap_or(u64::MAX).min(df.free / 2)
}

impl Benchmark<'_> {
    async fn latency(&self) -> Result<PingLatency, ClientError> {
        let (start, mut took) = (Instant::now(), Vec::new());
        while took.len() < MAX_PINGS && (took.is_empty() || start.elapsed() < self.time) {
            let sent = Instant::now();
            self.client.ping().await?;
            took.push(sent.elapsed());
        }
        took.sort();
        let ms = |hundredth: usize| {
            let index = (took.len() - 1) * hundredth / 100;
            took[index].as_secs_f64() * 1000.0
        };
        Ok(PingLatency {
            answers: took.len(),
            p50_ms: ms(50),
            p99_ms: ms(99),
        })
    }

    /// Uploads larger and larger files until one takes long enough. The last one stays.
    async fn up(&self) -> anyhow::Result<Rate> {
        let mut bytes = MIN_BYTES;
        loop {
            let progress = Progress::new();
            let options = FileOptions {
                if_exists: Some(IfExists::Fail),
                ..FileOptions::default()
            };
            let source = Random::new(bytes)?;
            let start = Instant::now();
            let put = self.client.put_from(source, self.path, options, &progress);
            Bar::new(self.output, &progress).during(put).await?;
            let rate = Rate::from_transfer(bytes, start.elapsed());
            if self.is_enough(start.elapsed()) || bytes == self.max_bytes {
                return Ok(rate);
            }
            self.client.rm(self.path, false).await?;
            bytes = (bytes * GROWTH).min(self.max_bytes);
        }
    }

    /// Downloads the file until that has taken long enough.
    async fn down(&self, bytes: u64) -> Result<Rate, ClientError> {
        let (mut received, mut took) = (0, Duration::ZERO);
        loop {
            let progress = Progress::new();
            let start = Instant::now();
            let options = FileOptions::default();
            let get = self
                .client
                .get_into(self.path, io::sink(), options, &progress);
            Bar::new(self.output, &progress).during(get).await?;
            received += bytes;
            took += start.elapsed();
            if self.is_enough(took) {
                return Ok(Rate::from_transfer(received, took));
            }
        }
    }

    /// A quarter of the time is enough, because the files before the last one also take time.
    fn is_enough(&self, took: Duration) -> bool {
        took * 4 >= self.time
    }
}

impl Rate {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn from_transfer(bytes: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self {
            bytes,
            seconds,
            bytes_per_second: bytes as f64 / seconds.max(1e-6),
        }
    }

    fn row(self, direction: &str) -> [String; 5] {
        [
            direction.to_owned(),
            size(self.bytes),
            format!("{:.2} s", self.seconds),
            format!("{:.1}", self.bytes_per_second / 1e6),
            format!("{:.2}", self.bytes_per_second * 8.0 / 1e9),
        ]
    }
}

fn describe(measurements: &Measurements) -> String {
    let Measurements { latency, up, down } = measurements;
    let rates = table(
        ["DIRECTION", "SIZE", "TIME", "MB/S", "GBIT/S"],
        &[up.row("up"), down.row("down")],
    );
    format!(
        "{rates}\nRound-trip time: median {:.2} ms, 99th percentile {:.2} ms",
        latency.p50_ms, latency.p99_ms
    )
}

/// Removes the file of a measurement that did not end, over a new connection.
async fn clean_up(way: &ConnectMethod, path: &str, output: Output) {
    let removing = async {
        let client = way.connect(None).await?;
        match client.rm(path, false).await {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
            removed => drop(removed?),
        }
        for upload in client.uploads().await? {
            if upload.path == path {
                client.discard(&upload.upload).await?;
            }
        }
        remote_session::leave(&client).await;
        Ok::<_, ClientError>(())
    };
    if !matches!(timeout(CLEANUP_TIMEOUT, removing).await, Ok(Ok(()))) {
        let path = safe(path);
        output.note(&format!("{path} may be left on the server; remove it"));
    }
}

/// A number of random bytes.
struct Random {
    block: Vec<u8>,
    remaining: u64,
}

impl Random {
    fn new(bytes: u64) -> anyhow::Result<Self> {
        let mut block = vec![0; BLOCK_BYTES];
        getrandom::fill(&mut block).context("cannot get random bytes from the system")?;
        Ok(Self {
            block,
            remaining: bytes,
        })
    }
}

impl Read for Random {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let now = buffer.len().min(BLOCK_BYTES).min(most);
        buffer[..now].copy_from_slice(&self.block[..now]);
        self.remaining -= now as u64;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn df(used: u64, limit: Option<u64>, free: u64) -> DfReply {
        DfReply {
            used,
            limit,
            files: 3,
            files_limit: None,
            free,
        }
    }

    #[test]
    fn free_space_is_limited_by_quota_and_disk() {
        assert_eq!(free_space(&df(10, None, 1000)), 500);
        assert_eq!(free_space(&df(10, Some(100), 1000)), 90);
        assert_eq!(free_space(&df(200, Some(100), 1000)), 0);
        let full = DfReply {
            files_limit: Some(3),
            ..df(10, None, 1000)
        };
        assert_eq!(free_space(&full), 0);
    }

    #[test]
    fn the_source_has_the_requested_length() {
        let mut bytes = Vec::new();
        let mut random = Random::new(3_000_000).expect("random");
        random.read_to_end(&mut bytes).expect("readable");
        assert_eq!(bytes.len(), 3_000_000);
    }
}

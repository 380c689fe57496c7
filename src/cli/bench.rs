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

/// The first file that is moved, and the smallest that is worth it.
const MIN_BYTES: u64 = 256 * 1024;

/// The largest, whatever room there is: it is there to be measured with, not to fill a disk.
const MAX_BYTES: u64 = 1 << 30;

/// Each file is larger than the one before by this factor, until it takes long enough.
const GROWTH: u64 = 4;

/// At most so many answers are waited for: more say nothing new.
const PINGS: usize = 500;

/// For what is left on the server to be removed.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Random bytes, over and over.
const BLOCK: usize = 1 << 20;

/// Measure the line to the server
///
/// How long a small answer takes, and how fast a file goes up and comes down again: through a session
/// like any other, with a digest compared at both ends, onto the server's disk and safe there. The
/// file is of random bytes, has a name of its own in your home that nothing else has, is as large as
/// the line is fast and as there is room, 1 GiB at most, and is removed again.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// About how long to measure each way
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// The measurements, as programs read them.
#[derive(Serialize)]
struct Measured {
    latency: PingLatency,
    up: Rate,
    down: Rate,
}

/// From a request to its answer.
#[derive(Serialize)]
struct PingLatency {
    answers: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// The last file that was moved, in one direction.
#[derive(Clone, Copy, Serialize)]
struct Rate {
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
}

/// A measurement under way.
struct Measuring<'a> {
    client: Client,
    output: Output,
    /// Of the file on the server.
    path: &'a str,
    /// For each way.
    time: Duration,
    /// The largest file that there is room for.
    most: u64,
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
            // The file may be on its way: once the session has ended it is there or it is not.
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
    ) -> anyhow::Result<Measured> {
        let df = client.df().await?;
        let most = free_space(&df).min(MAX_BYTES);
        if most < MIN_BYTES {
            bail!(
                "there is room for {} in your home, and it takes {} to measure; \
                 `haul df` shows what is used",
                size(most),
                size(MIN_BYTES)
            );
        }
        let measuring = Measuring {
            client: client.clone(),
            output,
            path,
            time: Duration::from_secs(self.seconds.into()),
            most,
        };
        output.note("measuring the answers, the way up and the way down");
        let latency = measuring.latency().await?;
        let up = measuring.up().await?;
        let down = measuring.down(up.bytes).await?;
        client.rm(path, false).await?;
        if up.bytes == most && most < MAX_BYTES {
            let most = size(most);
            output.note(&format!("there was room for a file of {most} and no more"));
        }
        Ok(Measured { latency, up, down })
    }
}

/// A path that nothing has, and nobody can guess.
fn fresh_path() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).context("no random bytes")?;
    Ok(format!("/.haul-bench-{}", HEXLOWER.encode(&random)))
}

/// Bytes that may be stored. Of the disk only half is taken: others want to write, too.
fn free_space(df: &DfReply) -> u64 {
    if df.files_limit.is_some_and(|limit| df.files >= limit) {
        return 0;
    }
    let quota = df.limit.map(|limit| limit.saturating_sub(df.used));
    quota.unwrap_or(u64::MAX).min(df.free / 2)
}

impl Measuring<'_> {
    async fn latency(&self) -> Result<PingLatency, ClientError> {
        let (start, mut took) = (Instant::now(), Vec::new());
        while took.len() < PINGS && (took.is_empty() || start.elapsed() < self.time) {
            let asked = Instant::now();
            self.client.ping().await?;
            took.push(asked.elapsed());
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

    /// Puts larger and larger files, of which the last stays, until one takes long enough.
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
            if self.is_enough(start.elapsed()) || bytes == self.most {
                return Ok(rate);
            }
            self.client.rm(self.path, false).await?;
            bytes = (bytes * GROWTH).min(self.most);
        }
    }

    /// Gets the file until that has taken long enough.
    async fn down(&self, bytes: u64) -> Result<Rate, ClientError> {
        let (mut moved, mut took) = (0, Duration::ZERO);
        loop {
            let progress = Progress::new();
            let start = Instant::now();
            let options = FileOptions::default();
            let get = self
                .client
                .get_into(self.path, io::sink(), options, &progress);
            Bar::new(self.output, &progress).during(get).await?;
            moved += bytes;
            took += start.elapsed();
            if self.is_enough(took) {
                return Ok(Rate::from_transfer(moved, took));
            }
        }
    }

    /// With the growth of the files this is reached before the whole time is over.
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

    fn row(self, way: &str) -> [String; 5] {
        [
            way.to_owned(),
            size(self.bytes),
            format!("{:.2} s", self.seconds),
            format!("{:.1}", self.bytes_per_second / 1e6),
            format!("{:.2}", self.bytes_per_second * 8.0 / 1e9),
        ]
    }
}

fn describe(measured: &Measured) -> String {
    let Measured { latency, up, down } = measured;
    let rates = table(
        ["WAY", "MOVED", "TIME", "MB/S", "GBIT/S"],
        &[up.row("up"), down.row("down")],
    );
    format!(
        "{rates}\nAn answer takes {:.2} ms, of a hundred 99 no more than {:.2} ms.",
        latency.p50_ms, latency.p99_ms
    )
}

/// Removes what a measurement that did not end has left, over a connection of its own.
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

/// So many random bytes.
struct Random {
    block: Vec<u8>,
    left: u64,
}

impl Random {
    fn new(bytes: u64) -> anyhow::Result<Self> {
        let mut block = vec![0; BLOCK];
        getrandom::fill(&mut block).context("no random bytes")?;
        Ok(Self { block, left: bytes })
    }
}

impl Read for Random {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let now = buffer.len().min(BLOCK).min(most);
        buffer[..now].copy_from_slice(&self.block[..now]);
        self.left -= now as u64;
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
    fn room_is_what_quota_and_disk_leave() {
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
    fn so_many_random_bytes_come_as_are_asked_for() {
        let mut bytes = Vec::new();
        let mut random = Random::new(3_000_000).expect("random");
        random.read_to_end(&mut bytes).expect("no end before it");
        assert_eq!(bytes.len(), 3_000_000);
    }
}

//! `haul ping`

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::cli::output::count;
use crate::cli::remote_session::RemoteSession;

/// Measure the response time of the server
#[derive(Debug, Args)]
pub(super) struct PingArgs {
    /// The number of requests
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
}

#[derive(Serialize)]
struct PingAnswer {
    time: jiff::Timestamp,
    ms: f64,
}

impl PingArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let mut fastest = f64::INFINITY;
        for _ in 0..self.count {
            let asked = Instant::now();
            let time = remote.client.ping().await?.time;
            let ms = asked.elapsed().as_secs_f64() * 1000.0;
            fastest = fastest.min(ms);
            let answer = PingAnswer { time, ms };
            remote
                .output
                .result(&answer, |answer| format!("reply in {:.2} ms", answer.ms))?;
        }
        if self.count > 1 {
            let answers = count(self.count.into(), "request");
            remote
                .output
                .note(&format!("{answers}, the fastest reply in {fastest:.2} ms"));
        }
        Ok(())
    }
}

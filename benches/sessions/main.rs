//! The cost of many sessions for a server in a separate process: `cargo bench --bench sessions`.
//!
//! It has three parts, which words on the command line select: `cargo bench --bench sessions --
//! idle`.
//!
//! - `idle`: thousands of sessions log in and stay. How long that takes, the memory and the idle
//!   time of each, and whether every one of them still answers.
//! - `crowd`: `ping` and `ls` in a session of their own, alone and while others download.
//! - `commands`: `ping`, `stat` and `ls` a second, pipelined on one connection and on many.
//!
//! `HAUL_IDLE` is the number of idle sessions (15000), for which both processes need as many file
//! descriptors; `HAUL_DOWNLOADS` that of downloads at once (100), `HAUL_CONNECTIONS` that of
//! connections with commands (50), `HAUL_FILE_MIB` the size of the file that is downloaded (256),
//! `HAUL_SECONDS` the length of each measurement (5). `HAUL_PROGRAM` is another `haul` to measure.
//! The data lies below `TMPDIR`: where that is a tmpfs no disk is measured.

mod commands;
mod crowd;
mod daemon;
mod idle;
mod session_client;

use std::error::Error;
use std::time::Duration;

type SessionsResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

const PARTS: [&str; 3] = ["idle", "crowd", "commands"];

fn main() -> SessionsResult<()> {
    // Cargo adds `--bench`.
    let words: Vec<_> = std::env::args().skip(1).collect();
    let chosen: Vec<_> = words.iter().filter(|word| *word != "--bench").collect();
    if let Some(unknown) = chosen.iter().find(|word| !PARTS.contains(&word.as_str())) {
        println!(
            "{unknown}: the parts are {}; the settings:",
            PARTS.join(", ")
        );
        println!(
            "HAUL_IDLE HAUL_DOWNLOADS HAUL_CONNECTIONS HAUL_FILE_MIB HAUL_SECONDS HAUL_PROGRAM"
        );
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let time = Duration::from_secs(number("HAUL_SECONDS", 5)?);
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|word| *word == part);
    if wanted("idle") {
        let sessions = number("HAUL_IDLE", 15_000)?;
        runtime.block_on(idle::measure(usize::try_from(sessions)?, time))?;
    }
    if wanted("crowd") {
        let downloads = number("HAUL_DOWNLOADS", 100)?;
        let size = number("HAUL_FILE_MIB", 256)? << 20;
        runtime.block_on(crowd::measure(downloads, size, time))?;
    }
    if wanted("commands") {
        let connections = number("HAUL_CONNECTIONS", 50)?;
        runtime.block_on(commands::measure(usize::try_from(connections)?, time))?;
    }
    Ok(())
}

fn number(variable: &str, usual: u64) -> SessionsResult<u64> {
    match std::env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(usual),
    }
}

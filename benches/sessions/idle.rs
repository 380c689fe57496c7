//! Many sessions that are logged in and do nothing.

use std::time::{Duration, Instant};

use haul::protocol::Ping;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::SessionsResult;
use crate::daemon::{Daemon, Memory};
use crate::session_client::{BenchSession, framed};

/// The number of concurrent logins.
const AT_ONCE: usize = 64;

/// About the number of sessions that a server allows a user by default.
const EACH: usize = 100;

/// The first sessions include the cost of one-time initialisation.
const FIRST: usize = 100;

/// After this time the sessions are idle, and none has reached its idle timeout.
const SETTLED: Duration = Duration::from_secs(2);

pub(crate) async fn measure(sessions: usize, time: Duration) -> SessionsResult<()> {
    // Idle sessions are measured for longer, because they cost little.
    let time = 2 * time;
    let daemon = Daemon::start(sessions + FIRST)?;
    println!("{sessions} sessions that are logged in and idle");
    let users = daemon.users(sessions.div_ceil(EACH)).await?;
    let first = log_in(&daemon, FIRST, &users).await?;
    sleep(SETTLED).await;
    let (before, used) = (daemon.memory()?, daemon.cpu()?);
    let start = Instant::now();
    let mut lines = log_in(&daemon, sessions, &users).await?;
    let took = start.elapsed().as_secs_f64();
    let cpu = daemon.cpu()? - used;
    let number = f64::from(u32::try_from(sessions)?);
    println!(
        "accept and log in all   {took:>8.2} s, {:.0} a second, {:.0} us of the server's processor each",
        number / took,
        cpu / number * 1e6
    );
    sleep(SETTLED).await;
    let after = daemon.memory()?;
    print_memory(sessions, before, after);
    let used = daemon.cpu()?;
    sleep(time).await;
    let idle = daemon.cpu()? - used;
    println!(
        "idle processor          {:>8.2} % of one core, over {} s",
        idle / time.as_secs_f64() * 100.0,
        time.as_secs()
    );
    let ping = framed(2, &Ping {});
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    for line in &mut lines {
        let asked = Instant::now();
        line.ask(&ping).await?;
        slowest = slowest.max(asked.elapsed());
    }
    println!(
        "a ping on each          {:>8.2} s one after the other, the slowest {:.1} ms",
        start.elapsed().as_secs_f64(),
        slowest.as_secs_f64() * 1000.0
    );
    drop((first, lines));
    Ok(())
}

fn print_memory(sessions: usize, before: Memory, after: Memory) {
    let each = |of: fn(&Memory) -> u64| {
        let more = of(&after).saturating_sub(of(&before));
        more / sessions as u64
    };
    println!(
        "memory of the server    {:>8} bytes resident each, {} proportional; {} MiB resident in all",
        each(|memory| memory.resident),
        each(|memory| memory.proportional),
        after.resident >> 20
    );
    println!(
        "memory of the kernel    {:>8} bytes each in slabs, both ends and all processes; {} in socket buffers",
        each(|memory| memory.slab),
        each(|memory| memory.buffers)
    );
}

/// Logs the users in one after the other, starting again with the first after the last.
async fn log_in(
    daemon: &Daemon,
    sessions: usize,
    users: &[String],
) -> SessionsResult<Vec<BenchSession>> {
    let mut lines = Vec::with_capacity(sessions);
    let mut work = JoinSet::new();
    for token in users.iter().cycle().take(sessions) {
        if work.len() >= AT_ONCE
            && let Some(line) = work.join_next().await
        {
            lines.push(line??);
        }
        let (address, token) = (daemon.address.clone(), token.clone());
        work.spawn(async move { BenchSession::log_in_at(&address, &token).await });
    }
    while let Some(line) = work.join_next().await {
        lines.push(line??);
    }
    Ok(lines)
}

//! The server as a separate process, and its resource usage according to the system.

use std::fs;
use std::io::{BufRead, BufReader, copy, sink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use haul::accounts::{Accounts, HashingCost, NewUser, UserName};
use haul::protocol::Secret;
use serde_json::Value;
use tempfile::TempDir;

use crate::SessionsResult;

/// A running `haul serve`; it is killed when dropped.
pub(crate) struct Daemon {
    pub(crate) address: String,
    /// Logs the admin in without a password hash.
    pub(crate) token: String,
    process: Child,
    place: TempDir,
}

/// The memory of a process and of the system at one moment, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// The resident memory of the process.
    pub(crate) resident: u64,
    /// The proportional set size: of shared pages only the process's share.
    pub(crate) proportional: u64,
    /// The kernel's slab memory for all processes, sockets included.
    pub(crate) slab: u64,
    /// Bytes in the buffers of all TCP sockets.
    pub(crate) buffers: u64,
}

/// The unit of processor times in `/proc` on every Linux.
const TICKS: f64 = 100.0;

const PAGE: u64 = 4096;

fn haul() -> Command {
    let program = std::env::var_os("HAUL_PROGRAM");
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_haul").into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAUL_") {
            command.env_remove(name);
        }
    }
    command.env("HAUL_OPS_LISTEN", "");
    command
}

impl Daemon {
    /// Starts a server in an empty directory, for `sessions` sessions.
    pub(crate) fn start(sessions: usize) -> SessionsResult<Self> {
        let place = tempfile::tempdir()?;
        let data = place.path().join("data");
        let mut process = haul()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .env("HAUL_LIMITS_SESSIONS", sessions.to_string())
            .env("HAUL_LIMITS_SESSIONS_PER_ADDRESS", "0")
            .env("HAUL_LIMITS_SESSIONS_PER_USER", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut log = BufReader::new(process.stdout.take().ok_or("no output")?);
        let address = address(&mut log)?;
        // The server logs into a pipe that is read, as under a service manager.
        std::thread::spawn(move || copy(&mut log, &mut sink()));
        let output = haul()
            .args(["token", "add", "admin", "--data"])
            .arg(&data)
            .output()?;
        let words = String::from_utf8(output.stdout)?;
        let token = words.split_whitespace().last().ok_or("no token")?;
        Ok(Self {
            address,
            token: token.to_owned(),
            process,
            place,
        })
    }

    /// Makes users; returns the token of each.
    pub(crate) async fn users(&self, number: usize) -> SessionsResult<Vec<String>> {
        let accounts = Accounts::open(&self.place.path().join("data")).await?;
        let accounts = accounts.with_hashing_cost(HashingCost::MIN);
        let password = Secret::new("correct horse".into());
        let mut tokens = Vec::with_capacity(number);
        for number in 0..number {
            let name: UserName = format!("user-{number}").parse()?;
            let new = NewUser::default();
            accounts.add_user(&name, &password, new).await?;
            let token = accounts.add_token(&name, "bench", None).await?;
            tokens.push(token.expose().to_owned());
        }
        Ok(tokens)
    }

    /// The directory in which the sessions start.
    pub(crate) fn home(&self) -> PathBuf {
        self.place.path().join("data/homes/admin")
    }

    /// The processor time of the server in seconds.
    pub(crate) fn cpu(&self) -> SessionsResult<f64> {
        let stat = self.proc("stat")?;
        // The name of the program is in parentheses, and may contain any character.
        let (_, fields) = stat.rsplit_once(") ").ok_or("no fields")?;
        let ticks: u32 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse().unwrap_or(0))
            .sum();
        Ok(f64::from(ticks) / TICKS)
    }

    pub(crate) fn memory(&self) -> SessionsResult<Memory> {
        let rollup = self.proc("smaps_rollup")?;
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        let pages = sockets
            .lines()
            .find_map(|line| line.strip_prefix("TCP:")?.rsplit(' ').next()?.parse().ok());
        Ok(Memory {
            resident: kib(&rollup, "Rss:") * 1024,
            proportional: kib(&rollup, "Pss:") * 1024,
            slab: kib(&fs::read_to_string("/proc/meminfo")?, "Slab:") * 1024,
            buffers: pages.unwrap_or(0) * PAGE,
        })
    }

    fn proc(&self, file: &str) -> SessionsResult<String> {
        Ok(fs::read_to_string(format!(
            "/proc/{}/{file}",
            self.process.id()
        ))?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value of `name` in a file of `/proc`.
fn kib(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.trim().strip_suffix(" kB"));
    number.and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// The address of the listener, from the log.
fn address(log: &mut impl BufRead) -> SessionsResult<String> {
    for line in log.lines() {
        let event: Value = serde_json::from_str(&line?)?;
        if event["message"] == "listening" {
            return Ok(event["address"].as_str().unwrap_or_default().to_owned());
        }
    }
    Err("it ended before it listened".into())
}

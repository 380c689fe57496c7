//! Servers and clients as processes: started, waited for, ended, and what they have used.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::PeersResult;

/// Linux counts the time of processes in hundredths of a second, whatever its clock does.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a server may take to stop before it is killed.
const LAST_MOMENT: Duration = Duration::from_secs(10);

/// Where a program is, also if it is one for administrators.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// A process in a group of its own; what is left of the group is ended when this is dropped.
pub(crate) struct BenchProcess {
    child: Child,
    log: PathBuf,
    ended: bool,
}

impl BenchProcess {
    /// Starts it, with what it says going to a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> PeersResult<Self> {
        let file = File::create(log)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
            ended: false,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and may be dropped meanwhile.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        // Without reaping it, so that its id stays its own until this process is done with it.
        let id = WaitId::Pid(Pid::from_child(&self.child));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        spawn_blocking(move || waitid(id, options)).await??;
        let status = self.child.wait()?;
        self.ended = true;
        Ok(status)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        let running = matches!(self.child.try_wait(), Ok(None));
        self.ended |= !running;
        running
    }

    /// The end of what it said.
    pub(crate) fn stderr_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl Drop for BenchProcess {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < LAST_MOMENT {
            if !self.runs() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a command of the preparation until it ends.
pub(crate) async fn finish(command: Command, log: &Path) -> PeersResult<()> {
    let name = command.get_program().display().to_string();
    let mut process = BenchProcess::start(command, log)?;
    let status = process.wait().await?;
    if !status.success() {
        return Err(format!("{name}: {status}: {}", process.stderr_tail()).into());
    }
    Ok(())
}

/// The processes below and with one.
fn tree(root: u32) -> HashMap<u32, [f64; 2]> {
    let mut found: Vec<(u32, u32, [f64; 2])> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some((parent, times)) = stat(id) {
            found.push((id, parent, times));
        }
    }
    let mut tree = HashMap::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        for &(child, parent, times) in &found {
            if child == id {
                tree.insert(id, times);
            } else if parent == id {
                open.push(child);
            }
        }
    }
    tree
}

/// The parent of a process, and the seconds of processor time of itself and of the children that
/// it has waited for.
fn stat(id: u32) -> Option<(u32, [f64; 2])> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let seconds = |at: usize| Some((number(at)? + number(at + 1)?) / TICKS_PER_SECOND);
    Some((fields.get(1)?.parse().ok()?, [seconds(11)?, seconds(13)?]))
}

/// What a server's processes have used so far, once those of its last session are gone: a server
/// that has a process for each session has their time when it has waited for them.
pub(crate) async fn server_seconds(root: u32, at_rest: usize) -> f64 {
    let begun = Instant::now();
    let mut before = -1.0;
    loop {
        let tree = tree(root);
        let now = tree.values().flatten().sum();
        #[expect(
            clippy::float_cmp,
            reason = "the very same count is what is waited for"
        )]
        if (tree.len() <= at_rest && now == before) || begun.elapsed() > Duration::from_secs(3) {
            return now;
        }
        before = now;
        sleep(Duration::from_millis(20)).await;
    }
}

/// How many processes a server has.
pub(crate) fn processes(root: u32) -> usize {
    tree(root).len()
}

/// The resources that all waited-for clients have used.
pub(crate) fn clients_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |(_, [_, waited_for])| waited_for)
}

/// The memory of a server's processes in KiB: resident, and with what they share counted once.
pub(crate) fn memory(root: u32) -> (u64, u64) {
    let sum = |file: &str, field: &str| {
        tree(root)
            .keys()
            .filter_map(|id| fs::read_to_string(format!("/proc/{id}/{file}")).ok())
            .filter_map(|text| {
                let line = text.lines().find(|line| line.starts_with(field))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .sum()
    };
    (sum("status", "VmRSS:"), sum("smaps_rollup", "Pss:"))
}

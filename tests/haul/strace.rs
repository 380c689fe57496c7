//! The system calls of the server's threads, as `strace` reports them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A system call on something in the data directory.
#[derive(Debug, Clone)]
pub(crate) struct SystemCall {
    pub(crate) name: String,
    /// Its number among the calls of this name, from 1.
    pub(crate) ordinal: usize,
    pub(crate) is_hit: bool,
    /// The complete line of `strace`.
    line: String,
}

impl SystemCall {
    /// The open files and directories in its arguments, in order.
    fn files(&self) -> Vec<&str> {
        let mut parts = self.line.split('<').skip(1);
        let mut files = Vec::new();
        while let Some((file, _)) = parts.next().and_then(|part| part.split_once('>')) {
            files.push(file);
        }
        files
    }

    /// The first name in its arguments.
    fn first_name(&self) -> &str {
        self.line.split('"').nth(1).unwrap_or_default()
    }

    fn syncs(&self, file: &str) -> bool {
        matches!(&*self.name, "fsync" | "fdatasync") && self.files().contains(&file)
    }

    fn changes(&self, file: &str) -> bool {
        let changing = [
            "write",
            "pwrite64",
            "ftruncate",
            "fsetxattr",
            "fremovexattr",
            "utimensat",
        ];
        changing.contains(&&*self.name) && self.files().contains(&file)
    }
}

/// Asserts that a file is synced before it is renamed, and its directory afterwards.
pub(crate) fn assert_lasts(calls: &[SystemCall]) {
    let mut names = 0;
    for (n, call) in calls.iter().enumerate() {
        let files = call.files();
        let dir = match (&*call.name, &files[..]) {
            ("mkdirat", [dir, ..]) => dir,
            ("renameat" | "renameat2", [from, to, ..]) => {
                let staged = format!("{from}/{}", call.first_name());
                let before = &calls[..n];
                let changed = before.iter().rposition(|call| call.changes(&staged));
                let synced = before.iter().rposition(|call| call.syncs(&staged));
                assert!(
                    changed.is_some() && changed < synced,
                    "not on the disk: {call:?}"
                );
                to
            }
            _ => continue,
        };
        let lasts = calls[n..].iter().any(|call| call.syncs(dir));
        assert!(lasts, "it may be lost: {call:?}");
        names += 1;
    }
    assert!(names > 0, "nothing got a name in {calls:?}");
}

/// The calls of a trace on files in `data`.
pub(crate) fn calls(trace: &str, data: &Path) -> Vec<SystemCall> {
    let data = data.to_str().expect("text");
    // A failed call that asks for the path of an open file does not show it.
    let is_on_data = |line: &str| line.contains(data) || line.contains("\"/proc/self/fd/");
    let mut calls: Vec<SystemCall> = Vec::new();
    let mut before = "";
    for line in trace.lines() {
        if line.starts_with("+++ killed by SIGKILL")
            && is_on_data(before)
            && let Some(last) = calls.last_mut()
        {
            last.is_hit = true;
        }
        before = line;
        let Some((name, _)) = line.split_once('(').filter(|_| is_on_data(line)) else {
            continue;
        };
        if matches!(name, "close" | "fcntl") {
            continue;
        }
        calls.push(SystemCall {
            ordinal: 1 + calls.iter().filter(|call| call.name == name).count(),
            name: name.to_owned(),
            is_hit: line.contains("(INJECTED)"),
            line: line.to_owned(),
        });
    }
    calls
}

/// A tracer of a thread or, with `-f`, of all threads of a process.
pub(crate) struct Strace {
    process: Child,
    output: PathBuf,
    /// Kept open, because `strace` continues to write.
    _stderr: BufReader<ChildStderr>,
}

impl Strace {
    /// Attaches a tracer; returns once the thread is traced.
    pub(crate) fn attach(thread: Pid, options: &[&str], temp_dir: &Path) -> io::Result<Self> {
        let output = temp_dir.join("trace");
        let mut process = Command::new("strace")
            .args(["-y", "-e", "trace=all"])
            .args(options)
            .args(["-p", &thread.as_raw_nonzero().to_string()])
            .arg("-o")
            .arg(&output)
            .stderr(Stdio::piped())
            .spawn()?;
        let mut messages = String::new();
        let mut stderr = BufReader::new(process.stderr.take().expect("piped"));
        while !messages.contains(" attached") {
            if stderr.read_line(&mut messages)? == 0 {
                process.wait()?;
                return Err(io::Error::other(messages));
            }
        }
        Ok(Self {
            process,
            output,
            _stderr: stderr,
        })
    }

    /// Detaches, unless the process has been killed; returns the trace.
    pub(crate) fn detach(mut self, is_killed: bool) -> String {
        if !is_killed {
            kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it runs");
        }
        self.process.wait().expect("it ends");
        fs::read_to_string(&self.output).expect("a trace")
    }
}

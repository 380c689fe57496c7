//! A user of the program, with pipes or at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::command_line::{Person, run};
use crate::daemon::Watchdog;
use crate::harness::{PASSWORD, TestServer, soon};

/// A user of the server, at a terminal of their own.
pub(super) struct Talker(pub(super) Person);

impl Talker {
    pub(super) fn new(server: &TestServer, user: &str) -> Self {
        Self::for_user(&server.address.to_string(), user)
    }

    pub(super) fn for_user(address: &str, user: &str) -> Self {
        Self(Person::for_url(format!("haul+plain://{user}@{address}")))
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(args);
        command
            .env("HAUL_SERVER", &self.0.url)
            .env("HAUL_PASSWORD", PASSWORD)
            .env("TERM", "xterm")
            .env("TZ", "UTC");
        command
    }

    /// Runs the program, which must end with `code`; returns its output without times.
    pub(super) async fn types(&self, args: &[&str], code: i32) -> (String, String) {
        self.types_into(args, "", code).await
    }

    pub(super) async fn types_into(
        &self,
        args: &[&str],
        input: &str,
        code: i32,
    ) -> (String, String) {
        let (output, stdout) = run(self.command(args), input).await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        (without_times(&stdout), stderr)
    }

    /// Starts the program with pipes.
    pub(super) fn starts(&self, args: &[&str]) -> RunningProgram {
        let mut child = self.command(args).spawn().expect("started");
        RunningProgram {
            stdout: collect_output(child.stdout.take().expect("piped")),
            stderr: collect_output(child.stderr.take().expect("piped")),
            keys: child.stdin.take(),
            _watchdog: Watchdog::of_process(&child),
            child,
        }
    }

    /// Starts the program at a terminal of 80 columns.
    pub(super) fn starts_at_terminal(&self, args: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("text").to_owned();
        let slave = File::options().read(true).write(true).open(name);
        let slave = slave.expect("opened");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).expect("sized");
        let end = || Stdio::from(slave.try_clone().expect("another"));
        let mut command = self.command(args);
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("started");
        let master = File::from(master);
        Terminal {
            screen: collect_output(master.try_clone().expect("another")),
            keys: master,
            slave,
            _watchdog: Watchdog::of_process(&child),
            child,
        }
    }
}

/// Collects the output in the background.
pub(super) fn collect_output(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let collected = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..length]);
            *collected.lock().expect("no panic") = String::from_utf8_lossy(&bytes).into_owned();
        }
    });
    text
}

/// Waits until `part` is in the output after `behind`; returns the output so far.
async fn wait_for_output(text: &Arc<Mutex<String>>, after: &str, part: &str) -> String {
    soon(part, async || {
        let text = text.lock().expect("no panic").clone();
        let start = text.find(after)? + after.len();
        text[start..].contains(part).then_some(text)
    })
    .await
}

pub(super) struct RunningProgram {
    pub(super) child: Child,
    keys: Option<ChildStdin>,
    pub(super) stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    _watchdog: Watchdog,
}

impl RunningProgram {
    pub(super) async fn prints(&self, part: &str) -> String {
        without_times(&wait_for_output(&self.stdout, "", part).await)
    }

    pub(super) async fn prints_error(&self, part: &str) {
        wait_for_output(&self.stderr, "", part).await;
    }

    pub(super) fn types(&mut self, line: &str) {
        let keys = self.keys.as_mut().expect("open");
        writeln!(keys, "{line}").expect("read");
    }

    /// Ends its input; returns its exit code and its output.
    pub(super) async fn ends(mut self) -> (Option<i32>, String) {
        drop(self.keys.take());
        let seen = Arc::clone(&self.stdout);
        let code = ended(self.child).await;
        let text = seen.lock().expect("no panic").clone();
        (code, without_times(&text))
    }
}

pub(super) struct Terminal {
    pub(super) child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
    pub(super) slave: File,
    _watchdog: Watchdog,
}

impl Terminal {
    pub(super) async fn shows(&self, after: &str, part: &str) -> String {
        wait_for_output(&self.screen, after, part).await
    }

    pub(super) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("taken");
    }
}

pub(super) async fn ended(mut child: Child) -> Option<i32> {
    let waiting = tokio::task::spawn_blocking(move || child.wait());
    let status = waiting.await.expect("no panic").expect("it ends");
    status.code()
}

/// The lines without the times at their start.
pub(super) fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let of_a_time = |c: char| c.is_ascii_digit() || c == ':' || c == '-';
        word.contains([':', '-']) && word.len() >= 5 && word.chars().all(of_a_time)
    };
    let mut lines = String::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some((first, after)) = rest.split_once(' ')
            && is_time(first)
        {
            rest = after;
        }
        lines.push_str(rest);
        lines.push('\n');
    }
    lines
}

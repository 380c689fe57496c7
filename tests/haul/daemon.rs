//! The real program as a separate process, for tests of memory, output and signals.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{PASSWORD, RawClient};

/// The longest time that a test waits for a process.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until at most `entries` entries are staged: a server deletes the leftovers of a killed one
/// after its start.
pub(crate) fn wait_until_tidy(data: &Path, entries: usize) {
    patiently("a tidy staging directory", || {
        let staged = std::fs::read_dir(data.join("staging")).expect("staging");
        (staged.count() <= entries).then_some(())
    });
}

/// A running `haul serve`; it is killed when dropped.
pub(crate) struct ServerProcess {
    pub(crate) address: String,
    /// The operators' address.
    pub(crate) ops: String,
    /// Its standard error before it listened.
    pub(crate) greeting: String,
    process: Child,
    /// Its log before it listened.
    pub(crate) started: Vec<Value>,
    /// Its log since it listened.
    logged: Arc<Mutex<String>>,
    logging: Option<JoinHandle<()>>,
    temp_dir: TempDir,
    data: PathBuf,
}

/// The results of a daemon that was stopped.
pub(crate) struct Stopped {
    pub(crate) code: Option<i32>,
    /// Its complete standard output.
    pub(crate) log: String,
}

/// The program under test, with an environment that is independent of this machine's settings.
pub(crate) fn haul() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAUL_") {
            command.env_remove(name);
        }
    }
    // Any free port, because other tests run at the same time.
    command.env("HAUL_OPS_LISTEN", "127.0.0.1:0");
    command
}

/// Below the usual soft limit of open files.
const FEW_FILES: &str = "ulimit -Sn 256";

/// Runs a command for operators; returns the last word of its output.
pub(crate) fn operate(data: &Path, command: &str, input: &str) -> String {
    let mut process = haul()
        .args(command.split(' '))
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = process.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{command}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned()
}

impl ServerProcess {
    /// Starts with default settings, the user `admin` and a free port.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts like [`Self::start`], with these environment variables.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Self {
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        let password = temp_dir.path().join("admin-password");
        std::fs::write(&password, PASSWORD).expect("written");
        let data = temp_dir.path().join("data");
        Self::spawn(temp_dir, &data, Some(&password), FEW_FILES, settings)
    }

    /// Starts with a hard limit of `most` file descriptors.
    pub(crate) fn start_with_descriptors(most: u32) -> Self {
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        let password = temp_dir.path().join("admin-password");
        std::fs::write(&password, PASSWORD).expect("written");
        let data = temp_dir.path().join("data");
        let limit = format!("ulimit -n {most}");
        Self::spawn(temp_dir, &data, Some(&password), &limit, &[])
    }

    /// Starts on the data directory `data`, with a file size limit of `blocks` blocks of 512 bytes.
    pub(crate) fn start_with_file_size(data: &Path, blocks: u32) -> Self {
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        Self::spawn(temp_dir, data, None, &format!("ulimit -f {blocks}"), &[])
    }

    /// Starts on the data directory `data`, with a generated password.
    pub(crate) fn start_on(data: &Path) -> Self {
        Self::start_on_with(data, &[])
    }

    /// Starts like [`Self::start_on`], with these settings in its environment.
    pub(crate) fn start_on_with(data: &Path, settings: &[(&str, &str)]) -> Self {
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        Self::spawn(temp_dir, data, None, FEW_FILES, settings)
    }

    fn spawn(
        temp_dir: TempDir,
        data: &Path,
        password: Option<&Path>,
        limit: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let greeting = temp_dir.path().join("stderr");
        let program = haul();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")])
            .arg(program.get_program());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(password) = password {
            command.env("HAUL_ADMIN_PASSWORD_FILE", password);
        }
        let mut process = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            // All connections of a test come from one address, and most belong to one user.
            .env("HAUL_LIMITS_SESSIONS_PER_ADDRESS", "0")
            .env("HAUL_LIMITS_SESSIONS_PER_USER", "0")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&greeting).expect("a file"))
            .spawn()
            .expect("the program starts");
        let mut log = BufReader::new(process.stdout.take().expect("piped"));
        let mut started = Vec::new();
        let listening = read_to_listening(&mut log, &mut started);
        let address = listening["address"]
            .as_str()
            .expect("an address")
            .to_owned();
        let ops = listening["ops"].as_str().unwrap_or_default().to_owned();
        let logged = Arc::new(Mutex::new(String::new()));
        let logging = std::thread::spawn({
            let logged = Arc::clone(&logged);
            move || {
                for line in log.lines() {
                    let line = line.expect("text");
                    let mut logged = logged.lock().expect("no panic");
                    logged.push_str(&line);
                    logged.push('\n');
                }
            }
        });
        Self {
            address,
            ops,
            greeting: std::fs::read_to_string(&greeting).expect("text"),
            started,
            process,
            logged,
            logging: Some(logging),
            temp_dir,
            data: data.to_owned(),
        }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The fingerprint of its certificate, from its log.
    pub(crate) fn fingerprint(&self) -> &str {
        let mut lines = self.started.iter();
        let line = lines.find(|line| line["event"] == "certificate");
        line.and_then(|line| line["fingerprint"].as_str())
            .expect("logged at the start")
    }

    /// The process.
    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// A token for the admin, which costs no password hash at each login.
    pub(crate) fn token(&self) -> String {
        let output = haul()
            .args(["token", "add", "admin", "--data"])
            .arg(self.data())
            .current_dir(&self.temp_dir)
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.split_whitespace().last().expect("a token").to_owned()
    }

    /// A session of the admin, by token.
    pub(crate) async fn log_in(&self, token: &str) -> RawClient {
        let mut client = RawClient::connect(&self.address).await;
        client.ok(json!({"cmd": "login", "token": token})).await;
        client
    }

    /// The resident memory of the process in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The peak resident memory of the process in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The number of open files and sockets of the process.
    pub(crate) fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.process.id()));
        open.expect("it runs").count()
    }

    fn memory(&self, line: &str) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a number");
        kib * 1024
    }

    /// Kills the process, and waits for its end.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub(crate) fn terminate(self) -> Stopped {
        self.signal(Signal::TERM);
        self.stopped()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it runs");
    }

    /// Waits for the end of the process.
    pub(crate) fn stopped(mut self) -> Stopped {
        let status = ended(&mut self.process);
        let logging = self.logging.take().expect("read once");
        logging.join().expect("no panic");
        Stopped {
            code: status.code(),
            log: self.logged.lock().expect("no panic").clone(),
        }
    }

    /// Waits for a line of the log with this message, and returns the last one.
    pub(crate) fn wait_for_log_line(&self, message: &str) -> Value {
        patiently(message, || {
            let logged = self.logged.lock().expect("no panic").clone();
            let lines = logged.lines().rev();
            let mut values = lines.map(|line| serde_json::from_str(line).expect(line));
            values.find(|value: &Value| value["message"] == message)
        })
    }
}

/// Waits until a process has ended.
pub(crate) fn ended(process: &mut Child) -> ExitStatus {
    patiently("the end", || process.try_wait().expect("a child"))
}

/// Kills a process that takes too long, so that a test that waits for it fails instead of hanging.
pub(crate) struct Watchdog(
    #[expect(dead_code, reason = "held: its end calls the dog off")] Sender<()>,
);

impl Watchdog {
    pub(crate) fn of_process(process: &Child) -> Self {
        let id = Pid::from_child(process);
        let (sender, called_off) = channel();
        std::thread::spawn(move || {
            if called_off.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(id, Signal::KILL);
            }
        });
        Self(sender)
    }
}

/// Polls until `look` returns a value; panics after the longest wait.
fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Stopped {
    /// The lines of the log.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.log.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// Reads the log up to the line about the listener, which is returned; adds the lines before it to
/// `started`.
pub(crate) fn read_to_listening(
    log: &mut BufReader<ChildStdout>,
    started: &mut Vec<Value>,
) -> Value {
    let mut line = String::new();
    while log.read_line(&mut line).expect("text") > 0 {
        let event: Value = serde_json::from_str(&line).expect(&line);
        if event["message"] == "listening" {
            return event;
        }
        started.push(event);
        line.clear();
    }
    panic!("it ended before it listened");
}

//! The real program as a process of its own, for what only a process shows: memory, output, signals.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::{PASSWORD, RawClient};

/// A running `haul serve`; it is killed when dropped.
pub(crate) struct Daemon {
    pub(crate) address: String,
    process: Child,
    data: TempDir,
}

/// The program under test, with an environment that knows nothing of this machine's haul.
pub(crate) fn haul() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_haul"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HAUL_") {
            command.env_remove(name);
        }
    }
    command
}

impl Daemon {
    /// With default settings, the user `admin` and a free port.
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let password = data.path().join("admin-password");
        std::fs::write(&password, PASSWORD).expect("written");
        let mut process = haul()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path().join("data"))
            .env("HAUL_ADMIN_PASSWORD_FILE", &password)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stderr = process.stderr.take().expect("piped");
        BufReader::new(stderr).read_line(&mut line).expect("a line");
        let address = line
            .strip_prefix("haul listens on ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            address: address.to_owned(),
            process,
            data,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// A token for the admin, which costs no password hash at each login.
    pub(crate) fn token(&self) -> String {
        let output = haul()
            .args(["token", "add", "admin", "--data"])
            .arg(self.data())
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.split_whitespace().last().expect("a token").to_owned()
    }

    /// A session of the admin, by token.
    pub(crate) async fn log_in(&self, token: &str) -> RawClient {
        let mut client = RawClient::connect(&self.address).await;
        client
            .ok(serde_json::json!({"cmd": "login", "token": token}))
            .await;
        client
    }

    /// Bytes of memory that the process has in use now.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most bytes of memory that the process ever had in use.
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|text| text.strip_prefix(line));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("a line about memory")
            .parse::<u64>()
            .expect("a number")
            * 1024
    }

    /// Sends SIGTERM and waits; the exit status.
    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

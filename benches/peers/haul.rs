//! haul as a script runs it: the defaults, a user with a token, verification at both ends, and
//! uploads that are on the disk when they are acknowledged. Encrypted, its certificate is pinned.
//!
//! What it serves was brought to it by `haul put`, as the files of its users are; uploads are
//! removed by `haul rm`. Every run is a process that connects and logs in; with a password in place
//! of the token that takes 40 ms of one core more, on purpose.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::peer::BenchPeer;
use crate::process::free_port;
use crate::rows::{BenchLoad, BenchRow, Task};
use crate::sync::SyncTask;

const PASSWORD: &str = "side by side on one machine";
/// Where uploads go.
const ARRIVED: &str = "/incoming";

struct Haul {
    room: PathBuf,
    port: u16,
    fingerprint: String,
}

pub(crate) fn prepare(place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
    let room = place.room("haul")?;
    let mut haul = Haul {
        room,
        port: free_port()?,
        fingerprint: String::new(),
    };
    let password = haul.room.join("password");
    fs::write(&password, PASSWORD)?;
    let added = haul
        .command(&["user", "add", "bench", "--quiet", "--data"])
        .arg(haul.data())
        .stdin(File::open(password)?)
        .output()?;
    if !added.status.success() {
        return Err(format!("haul user add: {}", added.stderr.escape_ascii()).into());
    }
    let token = haul
        .command(&["token", "add", "bench", "--quiet", "--data"])
        .arg(haul.data())
        .output()?;
    let printed = String::from_utf8(token.stdout)?;
    let token = printed.split_whitespace().last().ok_or("no token")?;
    fs::write(haul.token(), token)?;
    haul.fingerprint = haul.certificate()?;
    Ok(Box::new(haul))
}

impl Haul {
    fn data(&self) -> PathBuf {
        self.room.join("data")
    }

    fn token(&self) -> PathBuf {
        self.room.join("token")
    }

    /// The program, with an environment that knows nothing of this machine's haul.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HAUL_") {
                command.env_remove(name);
            }
        }
        command
            .env("XDG_CONFIG_HOME", &self.room)
            .env("XDG_STATE_HOME", &self.room)
            .env("HAUL_OPS_LISTEN", "")
            .args(arguments);
        command
    }

    /// The fingerprint of the certificate, as the server writes it into its log when it starts.
    fn certificate(&self) -> PeersResult<String> {
        let mut process = self
            .command(&["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let log = process.stdout.take().ok_or("no standard output")?;
        let found = BufReader::new(log)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .find_map(|line| Some(line["fingerprint"].as_str()?.to_owned()));
        process.kill()?;
        process.wait()?;
        Ok(found.ok_or("haul says no fingerprint")?)
    }

    fn client_of(&self, encrypted: bool, host: IpAddr, arguments: &[&str]) -> Command {
        let scheme = if encrypted { "haul" } else { "haul+plain" };
        let mut command = self.command(arguments);
        command
            .env(
                "HAUL_SERVER",
                format!("{scheme}://bench@{host}:{}", self.port),
            )
            .arg("--token-file")
            .arg(self.token());
        if encrypted {
            command.env("HAUL_FINGERPRINT", &self.fingerprint);
        }
        command
    }
}

impl BenchPeer for Haul {
    fn name(&self) -> &'static str {
        "haul"
    }

    fn verifies(&self) -> &'static str {
        "both ends"
    }

    fn syncs(&self) -> bool {
        true
    }

    fn server(&self) -> Command {
        let mut command = self.command(&["serve", "--listen"]);
        command
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--data")
            .arg(self.data());
        command
    }

    fn program(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_BIN_EXE_haul"))
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.port]
    }

    fn hello(&self) -> &'static [u8] {
        b"\x00\x00\x00\x16{\"id\":1,\"cmd\":\"hello\"}"
    }

    fn takes_part(&self, _row: &BenchRow) -> bool {
        true
    }

    fn client(&self, task: &Task) -> PeersResult<Command> {
        let encrypted = task.row.haul_encrypts();
        let mut command = if task.down() {
            let from = format!("/{}", task.name());
            let mut command = self.client_of(encrypted, task.host, &["get", &from]);
            command.arg(&task.target);
            command
        } else {
            let mut command = self.client_of(encrypted, task.host, &["put"]);
            command.arg(&task.source).arg(ARRIVED);
            command
        };
        command.arg("--quiet");
        Ok(command)
    }

    fn stock(&self, item: BenchLoad, place: &BenchDirectories) -> Option<Command> {
        let mut command = self.client_of(false, Ipv4Addr::LOCALHOST.into(), &["put", "--quiet"]);
        command
            .arg(place.source(item))
            .arg(format!("/{}", item.name()));
        Some(command)
    }

    fn arrives(&self, _item: BenchLoad, _place: &BenchDirectories) -> PathBuf {
        self.data().join("homes/bench").join(&ARRIVED[1..])
    }

    fn sync(&self, task: &SyncTask) -> PeersResult<Command> {
        let mut command = self.client_of(task.encrypted, task.host, &["sync", "--delete"]);
        let remote = format!(":/{}", task.name);
        if task.down {
            command.arg(remote).arg(task.local);
        } else {
            command.arg(task.local).arg(remote);
        }
        command.arg("--quiet");
        Ok(command)
    }

    fn synced(&self, name: &str, _place: &BenchDirectories) -> PathBuf {
        self.data().join("homes/bench").join(name)
    }

    fn forget_synced(&self, name: &str) -> Option<Command> {
        let path = format!("/{name}");
        let arguments = ["rm", "--recursive", "--quiet", path.as_str()];
        Some(self.client_of(false, Ipv4Addr::LOCALHOST.into(), &arguments))
    }

    fn forget(&self, _item: BenchLoad) -> Option<Command> {
        let arguments = ["rm", "--recursive", "--quiet", ARRIVED];
        Some(self.client_of(false, Ipv4Addr::LOCALHOST.into(), &arguments))
    }
}

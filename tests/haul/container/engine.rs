//! Containers of the image under test, and their state according to the engine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::haul;
use crate::harness::PASSWORD;

/// The longest time that a test waits for a container.
const PATIENCE: Duration = Duration::from_mins(1);

/// The options of every container, as OPERATIONS recommends them.
const CONFINED: [&str; 6] = [
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--memory=512m",
    "--pids-limit=256",
    "--health-interval=2s",
];

/// The further options of a container.
#[derive(Default)]
pub(super) struct RunOptions<'a> {
    /// Further arguments of `docker run`.
    pub(super) run: &'a [&'a str],
    /// If false, the password is in a file of the operator.
    pub(super) makes_up_password: bool,
}

/// A server in a container with its own volume; both are removed when it is dropped.
pub(super) struct Container {
    pub(super) name: String,
    port: u16,
    /// The working directory of its user.
    pub(super) temp_dir: TempDir,
}

impl Container {
    /// Runs the image and waits until it listens.
    pub(super) fn run(image: &str, options: &RunOptions<'_>) -> Self {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let random = temp_dir.path().file_name().expect("a name");
        let name = format!("haul-{}", random.to_string_lossy().trim_matches('.')).to_lowercase();
        let container = Self {
            name,
            port: free_port(),
            temp_dir,
        };
        let password = container.file("password", PASSWORD);
        let [publish, volume, secret] = [
            format!("--publish=127.0.0.1:{}:9000", container.port),
            format!("--volume={}:/data", container.name),
            format!("--volume={password}:/run/secrets/password:ro"),
        ];
        let mut args = vec!["run", "--detach", "--name", &*container.name];
        args.extend(CONFINED);
        args.extend([&*publish, &volume]);
        if !options.makes_up_password {
            args.extend([
                &*secret,
                "--env=HAUL_ADMIN_PASSWORD_FILE=/run/secrets/password",
            ]);
        }
        args.extend(options.run);
        args.push(image);
        docker(&args);
        container.wait_for_log_line("listening");
        container
    }

    /// Creates a file to mount into the container; returns its path.
    pub(super) fn file(&self, name: &str, content: &str) -> String {
        let path = self.temp_dir.path().join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        path.to_str().expect("text").to_owned()
    }

    /// All lines of `docker logs`, of standard output and of standard error.
    pub(super) fn log(&self) -> Vec<Value> {
        lines_of_log(&self.name)
    }

    /// Waits for a line of the log with this message.
    pub(super) fn wait_for_log_line(&self, message: &str) -> Value {
        patiently(message, || {
            let mut lines = self.log().into_iter().rev();
            lines.find(|line| line["message"] == message)
        })
    }

    pub(super) fn fingerprint(&self) -> String {
        let line = self.wait_for_log_line("certificate");
        line["fingerprint"].as_str().expect("text").to_owned()
    }

    /// The program on this machine, as admin at the published port, over TLS.
    pub(super) fn client(&self, args: &[&str]) -> Command {
        client(
            self.temp_dir.path(),
            self.port,
            &self.fingerprint(),
            PASSWORD,
            args,
        )
    }

    /// Runs the program, and returns its output.
    pub(super) fn succeeds(&self, args: &[&str]) -> String {
        printed(&mut self.client(args))
    }

    /// A value of the engine about the container, by a Go template.
    pub(super) fn inspect(&self, template: &str) -> String {
        inspect(&self.name, template)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for args in [
            ["rm", "--force", "--volumes", &*self.name],
            ["volume", "rm", "--force", &*self.name],
        ] {
            let _ = Command::new("docker").args(args).output();
        }
    }
}

/// The program on this machine, as admin of a server on a local port.
pub(super) fn client(
    temp_dir: &Path,
    port: u16,
    fingerprint: &str,
    password: &str,
    args: &[&str],
) -> Command {
    let mut command = haul();
    command
        .args(args)
        .args(["--server", &format!("haul://admin@127.0.0.1:{port}")])
        .args(["--fingerprint", fingerprint])
        .current_dir(temp_dir)
        .env("HAUL_PASSWORD", password)
        .env("XDG_CONFIG_HOME", temp_dir.join("config"))
        .env("XDG_STATE_HOME", temp_dir.join("state"));
    command
}

/// Runs a command that must succeed, and returns its output.
pub(super) fn printed(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `docker` and returns its output.
pub(super) fn docker(args: &[&str]) -> String {
    printed(Command::new("docker").args(args)).trim_end().into()
}

/// Runs `docker`, which must end with this code, and returns its output and errors.
pub(super) fn docker_fails(args: &[&str], code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("docker").args(args).output().expect("it runs");
    let all = String::from_utf8([stdout, stderr].concat()).expect("text");
    assert_eq!(status.code(), Some(code), "{all}");
    all
}

pub(super) fn inspect(container: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, container])
}

pub(super) fn lines_of_log(container: &str) -> Vec<Value> {
    let output = Command::new("docker").args(["logs", container]).output();
    let Output { stdout, stderr, .. } = output.expect("it runs");
    let all = String::from_utf8([stdout, stderr].concat()).expect("text");
    let lines = all.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Polls until `look` returns a value; panics after the longest wait.
pub(super) fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A free port, which stays the same when a container restarts.
pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

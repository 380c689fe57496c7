//! A user of the program.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use tempfile::TempDir;

use crate::daemon::{Watchdog, haul};
use crate::harness::{PASSWORD, TestServer};

/// A user of the program, with their own directory and settings.
pub(crate) struct Person {
    pub(crate) temp_dir: TempDir,
    pub(crate) url: String,
}

impl Person {
    pub(super) fn for_server(server: &TestServer) -> Self {
        Self::for_url(format!("haul+plain://alice@{}", server.address))
    }

    pub(crate) fn for_url(url: String) -> Self {
        Self {
            temp_dir: tempfile::tempdir().expect("a directory"),
            url,
        }
    }

    /// A user that `haul connect` has logged in.
    pub(crate) async fn connected(server: &TestServer) -> Self {
        let person = Self::for_server(server);
        let (output, _) = person
            .type_with(&[&*person.url.clone()], "connect", "")
            .await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        person
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp_dir.path().join("work").join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("there")
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let work = self.temp_dir.path().join("work");
        fs::create_dir_all(&work).expect("made");
        let mut command = haul();
        command
            .args(args)
            .current_dir(work)
            .env("XDG_CONFIG_HOME", self.temp_dir.path().join("config"))
            .env("XDG_STATE_HOME", self.temp_dir.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program with the password in the environment, and with standard input.
    pub(crate) async fn type_with(
        &self,
        args: &[&str],
        first: &str,
        input: &str,
    ) -> (Output, String) {
        let args: Vec<_> = [first].iter().chain(args).copied().collect();
        let mut command = self.command(&args);
        command.env("HAUL_PASSWORD", PASSWORD);
        run(command, input).await
    }

    /// Runs the program, and expects this exit code; returns standard output and standard error.
    pub(crate) async fn types(&self, args: &[&str], code: i32) -> (String, String) {
        let (output, stdout) = run(self.command(args), "").await;
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        (stdout, stderr)
    }
}

pub(crate) async fn run(mut command: std::process::Command, input: &str) -> (Output, String) {
    let input = input.to_owned();
    tokio::task::spawn_blocking(move || {
        let mut process = command.spawn().expect("the program starts");
        let _watchdog = Watchdog::of_process(&process);
        let mut stdin = process.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("read");
        drop(stdin);
        let output = process.wait_with_output().expect("it ends");
        let stdout = String::from_utf8(output.stdout.clone()).expect("text");
        (output, stdout)
    })
    .await
    .expect("no panic")
}

//! Transfers that survive broken connections.

pub(crate) mod cutting_proxy;
mod library;
mod program;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use haul::client::{Client, ClientError, RetryPolicy, Session, Trust};
use haul::protocol::Secret;
use tokio::task::spawn_blocking;

use crate::daemon::{Watchdog, haul};
use crate::harness::PASSWORD;

const PATIENCE: Duration = Duration::from_mins(1);
const MB: usize = 1_000_000;

async fn log_in(address: SocketAddr) -> Result<Client, ClientError> {
    log_in_at(format!("haul+plain://{address}"), Trust::default()).await
}

async fn log_in_at(url: String, trust: Trust) -> Result<Client, ClientError> {
    let client = Client::connect(&url.parse().expect("an address"), &trust).await?;
    let password = Secret::new(PASSWORD.into());
    client.login("alice", &password).await?;
    Ok(client)
}

/// A session of alice with short retry delays.
pub(crate) async fn session(address: SocketAddr) -> Session {
    session_at(format!("haul+plain://{address}"), Trust::default()).await
}

async fn session_at(url: String, trust: Trust) -> Session {
    let policy = RetryPolicy {
        first: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let client = log_in_at(url.clone(), trust.clone()).await;
    let connect = move || log_in_at(url.clone(), trust.clone());
    Session::new(client.expect("logged in"), policy, connect)
}

/// `haul` as alice, at this address.
fn command(address: SocketAddr, temp_dir: &Path, args: &[&str]) -> Command {
    command_as("alice", address, temp_dir, args)
}

fn command_as(user: &str, address: SocketAddr, temp_dir: &Path, args: &[&str]) -> Command {
    let mut command = haul();
    command
        .args(["--server", &format!("haul+plain://{user}@{address}")])
        .args(args)
        .env("HAUL_PASSWORD", PASSWORD)
        .env("XDG_CONFIG_HOME", temp_dir.join("config"))
        .current_dir(temp_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn run(mut command: Command) -> Output {
    let run = spawn_blocking(move || {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().expect("the program starts");
        let _watchdog = Watchdog::of_process(&process);
        process.wait_with_output().expect("it ends")
    });
    run.await.expect("no panic")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

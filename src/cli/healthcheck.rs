//! `haul healthcheck`: whether the server on this machine responds, for supervisors that restart it if not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::body::Body;
use clap::Args;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::first_start::reachable;
use crate::cli::output::Output;
use crate::client::{Client, ServerUrl, Trust};
use crate::config;
use crate::config::Config;

/// The time for the whole check. Supervisors have their own deadline, usually five seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Check whether the server on this machine is healthy
///
/// Reads the configuration file and the environment as `haul serve` does, and asks the server at
/// `ops.listen`, or on its own port if that is "". The exit code is 0 if the server is healthy and 1 if
/// not, within three seconds.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The server's configuration file
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl HealthcheckArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        // Container engines reserve exit codes above 1, so a wrong configuration is no usage error here.
        let config = Config::load(self.config.as_deref(), config::environment())
            .map_err(|error| anyhow!("{error}"))?;
        let address = reachable(config.ops.listen.unwrap_or(config.server.listen));
        let check = async {
            match config.ops.listen {
                Some(_) => get_health(address).await,
                None => greet(address).await,
            }
        };
        match timeout(CHECK_TIMEOUT, check).await {
            Ok(outcome) => outcome.with_context(|| format!("{address} is not healthy"))?,
            Err(_) => bail!(
                "{address} is not healthy: no answer within {} s",
                CHECK_TIMEOUT.as_secs()
            ),
        }
        output.note(&format!("{address} is healthy"));
        Ok(())
    }
}

/// Requests `/healthz` at the operators' address.
async fn get_health(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/healthz")
        .header(HOST, address.to_string())
        .body(Body::empty())?;
    // Errors of the connection are returned by the request.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => Ok(()),
        status => bail!("it responded with {status}"),
    }
}

/// Sends `hello` without TLS: nothing in it is secret, and the certificate may be unknown.
async fn greet(address: SocketAddr) -> anyhow::Result<()> {
    let url = ServerUrl {
        tls: false,
        user: None,
        host: address.ip().to_string(),
        port: address.port(),
    };
    let client = Client::connect(&url, &Trust::default()).await?;
    client.hello().await?;
    Ok(())
}

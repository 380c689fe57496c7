//! `haul healthcheck`: whether the server on this machine answers, for what restarts it if not.

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

/// For all of it. Those who ask have a deadline of their own, mostly of five seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Say whether the server on this machine is healthy
///
/// Finds the server as `haul serve` does, in the configuration file and the environment, and asks
/// it on the address for operators, or on its own port where `ops.listen` is "". Ends with 0 if it
/// answers as it should and with 1 if not, within three seconds.
#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The server's configuration file
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

impl HealthcheckArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        // Engines know 0 and 1 only, so it is not said by a code of its own.
        let config = Config::load(self.config.as_deref(), config::environment())
            .map_err(|error| anyhow!("{error}"))?;
        let address = reachable(config.ops.listen.unwrap_or(config.server.listen));
        let asking = async {
            match config.ops.listen {
                Some(_) => ask_for_operators(address).await,
                None => ask_as_client(address).await,
            }
        };
        match timeout(PATIENCE, asking).await {
            Ok(answered) => answered.with_context(|| format!("{address} is not healthy"))?,
            Err(_) => bail!(
                "{address} is not healthy: no answer within {} s",
                PATIENCE.as_secs()
            ),
        }
        output.note(&format!("{address} is healthy"));
        Ok(())
    }
}

/// Asks for `/healthz`.
async fn ask_for_operators(address: SocketAddr) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let question = Request::get("/healthz")
        .header(HOST, address.to_string())
        .body(Body::empty())?;
    // Errors of the connection reach the request.
    tokio::spawn(connection);
    let answer = sender.send_request(question).await?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => bail!("it answered {status}"),
    }
}

/// Says hello, unencrypted: there is nothing secret in it, and no certificate to know.
async fn ask_as_client(address: SocketAddr) -> anyhow::Result<()> {
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

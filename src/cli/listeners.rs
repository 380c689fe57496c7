//! The sockets of the daemon. They are bound before anything is created, so that a port in use leaves nothing
//! behind.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::{TcpListener, UdpSocket};

use crate::cli::exit::FailedWithAdvice;
use crate::config;
use crate::config::Config;
use crate::server;

/// The bound sockets, and their addresses.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) clients: TcpListener,
    pub(super) address: SocketAddr,
    /// On the same port, if the settings ask for it.
    pub(super) datagrams: Option<UdpSocket>,
    pub(super) operators: Option<TcpListener>,
    pub(super) ops: Option<SocketAddr>,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (clients, datagrams) = listen(&config.server).await?;
        let operators = listen_for_operators(&config.ops).await?;
        let ops = operators.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Self {
            address: clients
                .local_addr()
                .context("cannot read the address of server.listen")?,
            clients,
            datagrams,
            operators,
            ops: ops.context("cannot read the address of ops.listen")?,
        })
    }
}

/// Binds the listener, and the socket for datagrams if the settings ask for it.
async fn listen(
    settings: &config::ServerSettings,
) -> anyhow::Result<(TcpListener, Option<UdpSocket>)> {
    let address = settings.listen;
    server::bind(address, settings.datagrams)
        .await
        .with_context(|| FailedWithAdvice {
            failed: format!("cannot listen on {address}"),
            advice: "choose another address with --listen or server.listen",
        })
}

/// Binds the operators' address, if the settings name one.
async fn listen_for_operators(
    settings: &config::OpsSettings,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = settings.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| FailedWithAdvice {
        failed: format!("cannot listen on {address} for operators"),
        advice: "choose another address with ops.listen, or \"\" for none",
    })?;
    Ok(Some(listener))
}

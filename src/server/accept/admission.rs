//! Admits a connection before the first byte of its protocol: checks its network, acquires its permits,
//! and resolves the address of the peer, which a load balancer names in a PROXY header.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::server::accept::address_block::AddressBlock;
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::accept::network::{contains_address, is_network_allowed};
use crate::server::accept::proxy::read_header;
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;

/// An accepted connection with its permit.
#[derive(Debug)]
pub(crate) struct Admission {
    address: SocketAddr,
    /// Whether it comes from a load balancer, which must name the client.
    proxied: bool,
    /// Boxed, because it is moved several times while the session lasts.
    pub(crate) permit: Box<ConnectionPermit>,
}

impl Admission {
    /// Admits a connection, or refuses it for its address. Waits at the limit of connections.
    pub(crate) async fn acquire(shared: &Arc<ServerState>, address: SocketAddr) -> Option<Self> {
        let config = shared.config();
        let proxied = contains_address(&config.network.proxies, address.ip());
        let claim = if proxied {
            None
        } else {
            if !check_network(shared, address.ip()) {
                return None;
            }
            let max = config.limits.sessions_per_address;
            let Some(claim) = shared
                .connection_limiter
                .claim_address(address.ip().into(), max)
            else {
                log_address_full(shared, address.ip());
                return None;
            };
            Some(claim)
        };
        let permit = shared
            .connection_limiter
            .acquire(shared.max_connections(), claim)
            .await;
        Some(Self {
            address,
            proxied,
            permit: Box::new(permit),
        })
    }

    /// The peer: the client that the balancer names, or the other end of the connection. `None` if it
    /// is refused.
    pub(crate) async fn resolve_peer<R: AsyncRead + Unpin>(
        &mut self,
        shared: &Arc<ServerState>,
        reader: &mut R,
    ) -> Option<Peer> {
        if !self.proxied {
            return Some(Peer::plain(self.address));
        }
        let deadline = self.permit.accepted_at + shared.config().limits.login_timeout;
        let evicted = self.permit.evicted.clone();
        let reading = timeout_at(deadline, read_header(reader));
        let balancer = self.address;
        let named = match evicted.run_until_cancelled(reading).await {
            None => {
                debug!(name: "evicted", %balancer, "closed to make room for other connections");
                return None;
            }
            Some(Ok(Ok(named))) => named.unwrap_or(balancer),
            Some(Ok(Err(error))) => {
                if let Some(left_out) = shared.refusal_logs.header.allow(Instant::now()) {
                    warn!(
                        name: "proxy_header_missing",
                        %balancer,
                        %error,
                        left_out,
                        "closed: the load balancer sent no valid PROXY header"
                    );
                }
                return None;
            }
            Some(Err(_)) => {
                if let Some(left_out) = shared.refusal_logs.header.allow(Instant::now()) {
                    warn!(
                        name: "proxy_header_late",
                        %balancer,
                        left_out,
                        "closed: the load balancer sent no PROXY header in time"
                    );
                }
                return None;
            }
        };
        if !check_network(shared, named.ip()) {
            return None;
        }
        let max = shared.config().limits.sessions_per_address;
        // Health checks of the balancer itself do not count.
        if named != balancer && !self.permit.claim_address(named.ip().into(), max) {
            log_address_full(shared, named.ip());
            return None;
        }
        Some(Peer::proxied(named))
    }
}

fn check_network(shared: &ServerState, address: IpAddr) -> bool {
    let is_allowed = is_network_allowed(&shared.config().network, address);
    if !is_allowed && let Some(left_out) = shared.refusal_logs.network.allow(Instant::now()) {
        info!(name: "network_refused", %address, left_out, "refused: connections from its network are not allowed");
    }
    is_allowed
}

fn log_address_full(shared: &ServerState, address: IpAddr) {
    if let Some(left_out) = shared.refusal_logs.address.allow(Instant::now()) {
        let address = AddressBlock::from(address);
        warn!(
            name: "address_full",
            %address,
            left_out,
            "refused: the address has limits.sessions_per_address connections already"
        );
    }
}

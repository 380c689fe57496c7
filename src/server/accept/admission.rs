//! A connection that has arrived, before the first byte of its protocol: may it come in, and who is
//! it?

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::server::accept::address_block::AddressBlock;
use crate::server::accept::connection_limiter::ConnectionPermit;
use crate::server::accept::network::{admits, is_within};
use crate::server::accept::proxy::read_header;
use crate::server::limits::log_throttle::LogThrottle;
use crate::server::session::peer::Peer;
use crate::server::state::ServerState;

/// Lines of the log about connections that are not let in or on which nobody logs in, of each kind
/// in turns of its own.
#[derive(Debug)]
pub(crate) struct RefusalLogs {
    network: LogThrottle,
    address: LogThrottle,
    header: LogThrottle,
    /// What is not spoken here.
    pub(crate) opening: LogThrottle,
    /// Connections that fail or are silent before their session.
    pub(crate) silent: LogThrottle,
    pub(crate) handshake: LogThrottle,
    /// Sessions on which nobody logged in.
    pub(crate) visitor: LogThrottle,
    /// The system gives no connection, as while no descriptor is left.
    pub(crate) accept: LogThrottle,
    /// A connection that is gone before it was set up.
    pub(crate) socket: LogThrottle,
    /// A peer that takes no more of what is sent to it.
    pub(crate) unread: LogThrottle,
}

impl Default for RefusalLogs {
    fn default() -> Self {
        Self {
            network: LogThrottle::default(),
            address: LogThrottle::default(),
            header: LogThrottle::default(),
            opening: LogThrottle::default(),
            silent: LogThrottle::default(),
            handshake: LogThrottle::default(),
            visitor: LogThrottle::default(),
            accept: LogThrottle::of_a_state(),
            socket: LogThrottle::default(),
            unread: LogThrottle::default(),
        }
    }
}

impl RefusalLogs {
    /// Connections since the start that were closed before their session, by why.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("network", self.network.total()),
            ("address", self.address.total()),
            ("proxy_header", self.header.total()),
            ("not_spoken", self.opening.total()),
            ("silent", self.silent.total()),
            ("handshake", self.handshake.total()),
        ]
    }
}

/// A connection that has a seat.
#[derive(Debug)]
pub(crate) struct Admission {
    address: SocketAddr,
    /// It comes from a balancer, which has to say for whom.
    proxied: bool,
    /// Boxed: it is handed on and on while the session lasts.
    pub(crate) seat: Box<ConnectionPermit>,
}

impl Admission {
    /// Lets a connection in, or refuses it for its address. Waits while there is no room.
    pub(crate) async fn enter(shared: &Arc<ServerState>, address: SocketAddr) -> Option<Self> {
        let config = shared.config();
        let proxied = is_within(&config.network.proxies, address.ip());
        let claim = if proxied {
            None
        } else {
            if !is_welcome(shared, address.ip()) {
                return None;
            }
            let most = config.limits.sessions_per_address;
            let Some(claim) = shared.connection_limiter.claim(address.ip().into(), most) else {
                refuse_address(shared, address.ip());
                return None;
            };
            Some(claim)
        };
        let seat = shared
            .connection_limiter
            .enter(shared.most_connections(), claim)
            .await;
        Some(Self {
            address,
            proxied,
            seat: Box::new(seat),
        })
    }

    /// Who it is: whom a balancer names, or else the other end itself. `None` if that is refused.
    pub(crate) async fn peer<R: AsyncRead + Unpin>(
        &mut self,
        shared: &Arc<ServerState>,
        reader: &mut R,
    ) -> Option<Peer> {
        if !self.proxied {
            return Some(Peer::plain(self.address));
        }
        let deadline = self.seat.since + shared.config().limits.login_timeout;
        let evicted = self.seat.evicted.clone();
        let reading = timeout_at(deadline, read_header(reader));
        let balancer = self.address;
        let named = match evicted.run_until_cancelled(reading).await {
            None => {
                debug!(name: "evicted", %balancer, "closed: others need its place");
                return None;
            }
            Some(Ok(Ok(named))) => named.unwrap_or(balancer),
            Some(Ok(Err(error))) => {
                if let Some(left_out) = shared.refusals.header.turn(Instant::now()) {
                    warn!(
                        name: "proxy_header_missing",
                        %balancer,
                        %error,
                        left_out,
                        "closed: a balancer without its header"
                    );
                }
                return None;
            }
            Some(Err(_)) => {
                if let Some(left_out) = shared.refusals.header.turn(Instant::now()) {
                    warn!(
                        name: "proxy_header_late",
                        %balancer,
                        left_out,
                        "closed: a balancer without its header in time"
                    );
                }
                return None;
            }
        };
        if !is_welcome(shared, named.ip()) {
            return None;
        }
        let most = shared.config().limits.sessions_per_address;
        // What a balancer asks for itself, to see whether this server lives, is not counted.
        if named != balancer && !self.seat.claim(named.ip().into(), most) {
            refuse_address(shared, named.ip());
            return None;
        }
        Some(Peer::proxied(named))
    }
}

fn is_welcome(shared: &ServerState, address: IpAddr) -> bool {
    let welcome = admits(&shared.config().network, address);
    if !welcome && let Some(left_out) = shared.refusals.network.turn(Instant::now()) {
        info!(name: "network_refused", %address, left_out, "refused: its network may not connect");
    }
    welcome
}

fn refuse_address(shared: &ServerState, address: IpAddr) {
    if let Some(left_out) = shared.refusals.address.turn(Instant::now()) {
        let address = AddressBlock::from(address);
        warn!(
            name: "address_full",
            %address,
            left_out,
            "refused: it has as many connections as limits.sessions_per_address"
        );
    }
}

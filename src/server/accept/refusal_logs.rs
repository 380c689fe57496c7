//! Throttles for log lines that clients without a login can cause.

use crate::server::limits::log_throttle::LogThrottle;

/// One throttle for each kind of log line about connections that are refused or end without a login.
#[derive(Debug)]
pub(crate) struct RefusalLogs {
    pub(crate) network: LogThrottle,
    pub(crate) address: LogThrottle,
    pub(crate) header: LogThrottle,
    /// The peer speaks no protocol of this server.
    pub(crate) unknown_protocol: LogThrottle,
    /// The connection fails, or the peer sends nothing, before the session.
    pub(crate) silent: LogThrottle,
    pub(crate) handshake: LogThrottle,
    /// A session ends without a login.
    pub(crate) unauthenticated: LogThrottle,
    /// `accept` fails, for example while no descriptor is left.
    pub(crate) accept: LogThrottle,
    /// The options of a socket cannot be set.
    pub(crate) socket: LogThrottle,
    /// The peer does not read.
    pub(crate) unread_output: LogThrottle,
}

impl Default for RefusalLogs {
    fn default() -> Self {
        Self {
            network: LogThrottle::default(),
            address: LogThrottle::default(),
            header: LogThrottle::default(),
            unknown_protocol: LogThrottle::default(),
            silent: LogThrottle::default(),
            handshake: LogThrottle::default(),
            unauthenticated: LogThrottle::default(),
            accept: LogThrottle::once_per_minute(),
            socket: LogThrottle::default(),
            unread_output: LogThrottle::default(),
        }
    }
}

impl RefusalLogs {
    /// Connections since the start that were closed before their session, by reason.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("network", self.network.total()),
            ("address", self.address.total()),
            ("proxy_header", self.header.total()),
            ("not_spoken", self.unknown_protocol.total()),
            ("silent", self.silent.total()),
            ("handshake", self.handshake.total()),
        ]
    }
}

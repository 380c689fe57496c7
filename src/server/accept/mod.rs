//! Accepting connections: the listener, the limits on connections, PROXY headers, TLS, and the
//! detection of the dialect that a client speaks.

pub(crate) mod address_block;
pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod connection_limiter;
pub(crate) mod listener;
pub(crate) mod network;
pub(crate) mod proxy;
pub(crate) mod refusal_logs;
pub(crate) mod sniff;
pub(crate) mod tls;

//! Datagrams: requests and messages over UDP, on the same port as the listener.
//!
//! ```text
//! socket ─► parse ─► ticket ─► HMAC ─► replay window ─► command ─► reply ─► socket
//!                                           └─► kept reply ──────────────►
//! events of a session ─► its tickets ─► schedule ─► socket, until acknowledged
//! ```
//!
//! Before its HMAC is verified, a datagram costs a bounded amount of work and no lasting memory. A
//! datagram that fails verification gets no answer; a search for servers gets one, at a limited rate.
//!
//! One task receives and sends (`receiver`); a `say` runs in a task of its own. Locks are never held
//! across an await point.

pub(crate) mod answer;
pub(crate) mod bind;
pub(crate) mod hello;
pub(crate) mod outgoing;
pub(crate) mod receiver;
pub(crate) mod replay;
pub(crate) mod service;
pub(crate) mod ticket_observer;
pub(crate) mod tickets;

pub use crate::server::udp::bind::bind;
pub(crate) use crate::server::udp::receiver::run;
pub(crate) use crate::server::udp::service::DatagramService;
pub(crate) use crate::server::udp::ticket_observer::TicketObserver;

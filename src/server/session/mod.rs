//! Sessions: login, the request loop, the registry of sessions, and the log of requests.

pub(crate) mod close_reason;
pub(crate) mod dialect;
pub(crate) mod idle;
pub(crate) mod member;
pub(crate) mod peer;
pub(crate) mod registry;
pub(crate) mod request_log;
pub(crate) mod request_loop;
pub(crate) mod responder;
pub(crate) mod state;
pub(crate) mod unauthenticated;

//! haul: a file and message server for teams and their programs, and the client that goes with it.
//!
//! ```text
//! cli ──► client ──► connection ──► protocol
//!  ├────► ops ────► server             ▲
//!  ├────► server ──► connection        │
//!  │        ├──────► accounts ──► storage (plain values of protocol only)
//!  │        ├──────► messages ──► connection (the lanes of events)
//!  │        └──────► storage
//!  └────► config (settings, typed), telemetry (the log)
//! ```
//!
//! `tls` has the few values that server and client share when they encrypt a connection, `database`
//! what `accounts` and `messages` share to open theirs, `ownership` whose the files are, `clock` how
//! the age of what may be deleted is measured.
//!
//! `protocol` imports nothing else of the crate, `storage` only the plain values of `protocol`;
//! `server` and `client` never see each other.

pub mod accounts;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod connection;
mod database;
pub mod messages;
pub mod ops;
mod ownership;
pub mod protocol;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod tls;

//! haul: a file and message server for teams and their programs, and the client that goes with it.
//!
//! ```text
//! cli ──► client ──► connection ──► protocol
//!  ├────► ops ────► server
//!  ├────► server ──► accounts ──► storage ──► protocol (plain values only)
//!  │        ├──────► messages ──► connection (event queues)
//!  │        ├──────► storage
//!  │        └──────► connection ──► protocol
//!  └────► config (typed settings), telemetry (the log)
//! ```
//!
//! Smaller modules serve several of these: `tls` holds the TLS values that server and client share,
//! `database` opens the databases of `accounts` and `messages`, `ownership` sets the owner of new files,
//! `clock` measures the age of files that may be deleted, and `io_error` describes errors of the system
//! to people.
//!
//! `protocol` imports nothing else of the crate, and `storage` only the plain values of `protocol`.
//! `server` and `client` do not import each other. No two files import each other, directly or
//! indirectly.

pub mod accounts;
pub mod cli;
pub mod client;
mod clock;
pub mod config;
pub mod connection;
mod database;
mod io_error;
pub mod messages;
pub mod ops;
mod ownership;
pub mod protocol;
pub mod server;
pub mod storage;
pub mod telemetry;
pub mod tls;

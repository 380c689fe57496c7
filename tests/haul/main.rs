//! Everything that needs a running server: the specification, as sentences.

mod blocking;
mod chance;
mod daemon;
mod harness;
mod needs;

mod admin;
mod again;
mod bandwidth;
mod client;
mod command_line;
mod corpus;
mod faults;
mod files;
mod foreign_clients;
mod framing;
mod full;
mod hostile;
mod json;
mod kill;
mod limits;
mod load;
mod network;
mod operations_document;
mod passwd;
mod paths;
mod protocol_document;
mod races;
mod reloading;
mod resume;
mod serving;
mod sessions;
mod stopping;
mod strace;
mod tls;
mod transfers;

//! Everything that needs a running server: the specification, as sentences.

mod daemon;
mod harness;

mod admin;
mod again;
mod bandwidth;
mod client;
mod command_line;
mod corpus;
mod files;
mod foreign_clients;
mod framing;
mod hostile;
mod json;
mod limits;
mod load;
mod operations_document;
mod passwd;
mod paths;
mod protocol_document;
mod reloading;
mod resume;
mod serving;
mod sessions;
mod stopping;
mod tls;
mod transfers;

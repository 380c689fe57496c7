//! Everything that needs a running server: the specification, as sentences.

mod daemon;
mod harness;

mod admin;
mod client;
mod command_line;
mod corpus;
mod files;
mod foreign_clients;
mod framing;
mod hostile;
mod json;
mod load;
mod paths;
mod protocol_document;
mod serving;
mod sessions;
mod transfers;

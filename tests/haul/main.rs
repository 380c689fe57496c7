//! Everything that needs a running server: the specification, as sentences.

mod blocking;
mod chance;
mod daemon;
mod harness;

mod admin;
mod client;
mod command_line;
mod faults;
mod files;
mod foreign_clients;
mod framing;
mod full;
mod json;
mod kill;
mod load;
mod paths;
mod protocol_document;
mod races;
mod resume;
mod serving;
mod sessions;
mod transfers;

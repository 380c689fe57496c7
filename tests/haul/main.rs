//! Everything that needs a running server: the specification, as sentences.

mod daemon;
mod harness;

mod admin;
mod files;
mod framing;
mod json;
mod load;
mod paths;
mod sessions;
mod transfers;

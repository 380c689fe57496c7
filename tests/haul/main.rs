//! Everything that needs a running server: the specification, as sentences.

mod harness;

mod admin;
mod files;
mod framing;
mod json;
mod paths;
mod sessions;
mod transfers;

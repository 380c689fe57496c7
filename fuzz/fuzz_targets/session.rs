#![no_main]

#[path = "../bodies/session/mod.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|input: &[u8]| session::check(input));

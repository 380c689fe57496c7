#![no_main]

#[path = "../bodies/datagram.rs"]
mod datagram;

libfuzzer_sys::fuzz_target!(|input: &[u8]| datagram::check(input));

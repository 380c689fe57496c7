#![no_main]

#[path = "../bodies/path.rs"]
mod path;

libfuzzer_sys::fuzz_target!(|input: &[u8]| path::check(input));

//! The checks of the fuzz targets, on every input of their corpus and on new random inputs.

#[path = "../../fuzz/bodies/codec.rs"]
mod codec;
#[path = "../../fuzz/bodies/datagram.rs"]
mod datagram;
#[path = "../../fuzz/bodies/path.rs"]
mod path;
#[path = "../../fuzz/bodies/request.rs"]
mod request;
#[path = "../../fuzz/bodies/session/mod.rs"]
mod session;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::*;

/// Runs `check` on every file of a target's corpus; names an input that fails.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut played = 0;
    for entry in std::fs::read_dir(&corpus).expect("a corpus") {
        let file = entry.expect("an entry").path();
        let input = std::fs::read(&file).expect("an input");
        let held = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(held.is_ok(), "{} fails", file.display());
        played += 1;
    }
    assert!(played > 10, "{} has only {played} inputs", corpus.display());
}

#[test]
fn every_input_of_the_codec_corpus_holds() {
    replay("codec", codec::check);
}

#[test]
fn every_input_of_the_request_corpus_holds() {
    replay("request", request::check);
}

#[test]
fn every_input_of_the_datagram_corpus_holds() {
    replay("datagram", datagram::check);
}

#[test]
fn every_input_of_the_path_corpus_holds() {
    replay("path", path::check);
}

#[test]
fn every_input_of_the_session_corpus_holds() {
    replay("session", session::check);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_session_is_answered_as_the_model_says(
        input in prop::collection::vec(prop_oneof![0..=40_u8, any::<u8>()], 0..250),
    ) {
        session::check(&input);
    }
}

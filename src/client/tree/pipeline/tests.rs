//! A pipeline, step by step.

use super::*;
use crate::client::FileOptions;
use crate::client::tests::pair;
use crate::client::tree::upload_request::{LocalSource, UploadDirection};

#[tokio::test]
async fn a_file_whose_connection_is_lost_while_it_is_encoded_is_handed_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = directory.path().join("a");
    std::fs::write(&local, "a").expect("written");
    let (client, _peer) = pair();
    let session = Session::from(client.clone());
    let mut pipeline = Pipeline::new(
        UploadDirection { keeps_modes: true },
        &session,
        &Progress::new(),
    );
    pipeline.add(FoundFile {
        file: LocalSource {
            local,
            remote: "a".into(),
            options: FileOptions::default(),
        },
        size: 1,
    });
    let files = std::mem::take(&mut pipeline.queued);
    let answers = pipeline.answer_sender.clone();
    let batch = encode(
        &UploadDirection { keeps_modes: true },
        client.clone(),
        files,
        0,
        &answers,
    );
    client.hang_up();
    let answer = pipeline.answers.recv().await.expect("an answer");
    assert!(pipeline.accept(answer).is_none());
    let outcomes = pipeline.send(batch);
    assert!(matches!(
        outcomes[..],
        [PipelineOutcome::Separate(_, TransferAttempt::First)]
    ));
    assert!(pipeline.is_idle());
}

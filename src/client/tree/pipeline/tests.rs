//! A pipeline, step by step.

use super::*;
use crate::client::FileOptions;
use crate::client::tests::pair;
use crate::client::tree::download_request::{DownloadDirection, LocalTarget};
use crate::client::tree::upload_request::{LocalSource, UploadDirection};

#[tokio::test]
async fn a_file_whose_connection_is_lost_while_it_is_encoded_is_handed_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = directory.path().join("a");
    std::fs::write(&local, "a").expect("written");
    let (client, _peer) = pair();
    let session = Session::from(client.clone());
    let mut pipeline = Pipeline::new(
        UploadDirection {
            keeps_modes: true,
            keeps_existing: false,
        },
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
        &UploadDirection {
            keeps_modes: true,
            keeps_existing: false,
        },
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

#[tokio::test]
async fn the_files_that_were_answered_first_are_completed_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let (client, _peer) = pair();
    let direction = DownloadDirection {
        options: FileOptions::default(),
    };
    let mut pipeline = Pipeline::new(direction, &Session::from(client), &Progress::new());
    for number in 0..=MAX_DISK_BATCH_FILES {
        let found = FoundFile {
            file: LocalTarget {
                remote: number.to_string(),
                local: directory.path().join(number.to_string()),
                level: 1,
                listed: None,
            },
            size: 1,
        };
        pipeline.answered.push(AnsweredFile {
            file: OutstandingFile {
                found,
                expected: (),
            },
            reply: RawValue::from_string("{}".into()).expect("JSON"),
            received: ReceivedPart::default(),
        });
    }
    pipeline.complete_batch();
    let left: Vec<_> = pipeline
        .answered
        .iter()
        .map(|file| &*file.file.found.file.remote)
        .collect();
    assert_eq!(left, [MAX_DISK_BATCH_FILES.to_string()]);
}

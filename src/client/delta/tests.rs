//! Servers that lie about their files.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::client::delta::chunk_list::MAX_CHUNKS;
use crate::client::tests::{ScriptedServer, blake3, pair};
use crate::client::{FileOptions, Progress, Session};
use crate::protocol::{
    CUTTING, ChunksBegin, ChunksReply, ContentChunk, ContentChunker, Entry, Frame, GetBegin,
    HashReply, Kind, Request, StatReply, encode_begin, encode_ok,
};

const SIZE: usize = 5 * 1024 * 1024;

/// A local file of zeros, which is one chunk again and again.
fn old_file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    fs::write(&path, vec![0; SIZE]).expect("written");
    (directory, path)
}

fn records(chunks: impl IntoIterator<Item = ContentChunk>) -> Vec<u8> {
    let mut records = Vec::new();
    for chunk in chunks {
        chunk.put_record(&mut records);
    }
    records
}

/// The chunks of the local file.
fn chunks_of_zeros() -> Vec<ContentChunk> {
    let (mut chunker, mut chunks) = (ContentChunker::default(), Vec::new());
    chunker.update(&vec![0; SIZE], |chunk, _| chunks.push(chunk));
    chunker.finish(|chunk, _| chunks.push(chunk));
    chunks
}

fn strange_chunk(length: u32) -> ContentChunk {
    ContentChunk {
        length,
        hash: [7; 8],
    }
}

/// The answer to `chunks`.
struct ListAnswer {
    version: &'static str,
    size: u64,
    records: Vec<u8>,
    count: u64,
}

impl ListAnswer {
    fn of(chunks: Vec<ContentChunk>) -> Self {
        Self {
            version: "v",
            size: SIZE as u64,
            count: chunks.len() as u64,
            records: records(chunks),
        }
    }
}

/// Answers everything that a get of the file needs. `content` is what its whole has, in one short chunk.
async fn serve(peer: &mut ScriptedServer, list: ListAnswer, content: &[u8]) {
    while let Some((id, request)) = peer.next_request().await {
        match request {
            Request::Stat(_) => {
                let mut entry = Entry::new("f", Kind::File, SIZE as u64, Timestamp::UNIX_EPOCH);
                entry.version = Some("v".into());
                let path = "/f".into();
                peer.say(encode_ok(id, &StatReply { path, entry })).await;
            }
            Request::Chunks(_) => answer_chunks(peer, id, &list).await,
            Request::Hash(_) => {
                let (digest, size) = (blake3(content), SIZE as u64);
                peer.say(encode_ok(id, &HashReply { digest, size })).await;
            }
            Request::Get(get) if get.ranges.is_some() => {
                let length = 10;
                let begin = GetBegin {
                    size: SIZE as u64,
                    offset: 0,
                    length,
                    modified: Timestamp::UNIX_EPOCH,
                    mode: None,
                    version: "v".into(),
                };
                peer.say(encode_begin(id, &begin)).await;
                let chunk = Bytes::from_static(&[1; 10]);
                peer.send(Frame::Data { stream: id, chunk }).await;
                let reply = crate::protocol::GetReply {
                    size: SIZE as u64,
                    digest: None,
                };
                peer.say(encode_ok(id, &reply)).await;
            }
            Request::Get(_) => {
                peer.send_file(id, content, blake3(content)).await;
                return;
            }
            Request::Cancel(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn answer_chunks(peer: &mut ScriptedServer, id: u32, list: &ListAnswer) {
    let begin = ChunksBegin {
        size: list.size,
        version: list.version.into(),
        cutting: CUTTING.into(),
    };
    peer.say(encode_begin(id, &begin)).await;
    for piece in list.records.chunks(100_000) {
        let chunk = Bytes::copy_from_slice(piece);
        peer.send(Frame::Data { stream: id, chunk }).await;
    }
    let reply = ChunksReply {
        count: list.count,
        size: list.size,
        version: list.version.into(),
    };
    peer.say(encode_ok(id, &reply)).await;
}

/// Lists that are not those of the file.
fn lies() -> Vec<(&'static str, ListAnswer)> {
    let zeros = chunks_of_zeros();
    let of = |chunks| ListAnswer::of(chunks);
    let count = u32::try_from(SIZE / 4096).expect("few");
    vec![
        ("of other content", of(zeros.clone())),
        ("of a part", of(zeros[1..].to_vec())),
        ("empty", of(Vec::new())),
        (
            "of more than the file",
            of([zeros.clone(), zeros.clone()].concat()),
        ),
        ("of many chunks", of(vec![strange_chunk(1); MAX_CHUNKS + 1])),
        (
            "of unknown chunks",
            of((0..count).map(|_| strange_chunk(4096)).collect()),
        ),
        (
            "with a chunk behind the end of the file",
            ListAnswer {
                records: [records(zeros.clone()), vec![0; ContentChunk::RECORD_BYTES]].concat(),
                ..of(zeros.clone())
            },
        ),
        (
            "with half a record",
            ListAnswer {
                records: [records(zeros.clone()), vec![0; 7]].concat(),
                ..of(zeros.clone())
            },
        ),
        (
            "of another version",
            ListAnswer {
                version: "w",
                ..of(zeros.clone())
            },
        ),
        (
            "with another count",
            ListAnswer {
                count: 1,
                ..of(zeros.clone())
            },
        ),
        (
            "of a larger file",
            ListAnswer {
                size: 2 * SIZE as u64,
                ..of([zeros.clone(), zeros].concat())
            },
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_file_whose_list_of_chunks_is_a_lie_is_received_whole() {
    for (lie, list) in lies() {
        let (client, mut peer) = pair();
        let session = Session::from(client);
        let (directory, path) = old_file();
        let (options, progress) = (FileOptions::default(), Progress::new());
        let get = session.get_delta("f", &path, options, &progress);
        let served = async {
            serve(&mut peer, list, b"whole").await;
            // The end of a cancelled request may be outstanding.
            while peer.next_request().await.is_some() {}
        };
        let (fetched, bytes) = tokio::select! {
            got = get => got.expect(lie),
            () = served => panic!("{lie}: the client hung up"),
        };
        assert_eq!((fetched.size, bytes.saved), (5, 0), "{lie}");
        assert_eq!(fs::read(&path).expect("there"), b"whole", "{lie}");
        let entries = directory.path().read_dir().expect("readable").count();
        assert_eq!(entries, 1, "{lie}: no part file is left");
        assert_eq!((progress.bytes(), progress.saved_bytes()), (5, 0), "{lie}");
    }
}

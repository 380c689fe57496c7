//! The cost of single operations: `cargo bench --bench micro`. A word after `--` selects the
//! benchmarks whose names contain it; `-- --help` lists all options.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use haul::accounts::Accounts;
use haul::config::Config;
use haul::messages::Messages;
use haul::protocol::{
    Algorithm, Entry, Frame, FrameCodec, Get, Hasher, Kind, Login, Ls, LsReply, Ping, Request,
    Secret, Stat, TimeReply, encode_ok, encode_request,
};
use haul::server::{Peer, Server, Shutdown};
use haul::storage::{Store, View, VirtualPath};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio_util::codec::{Decoder, Encoder};

fn main() {
    divan::main();
}

/// Decoding and encoding of frames.
mod frames {
    use super::{
        Bencher, Bytes, BytesCount, BytesMut, Decoder, Encoder, Frame, FrameCodec, encoded,
    };

    #[divan::bench(args = [64, 4096])]
    fn decode_control(bencher: Bencher, size: usize) {
        decode(bencher, &control(size));
    }

    #[divan::bench(args = [4096, 128 * 1024])]
    fn decode_data(bencher: Bencher, size: usize) {
        decode(bencher, &data(size));
    }

    #[divan::bench(args = [64, 4096])]
    fn encode_control(bencher: Bencher, size: usize) {
        encode(bencher, &control(size));
    }

    #[divan::bench(args = [4096, 128 * 1024])]
    fn encode_data(bencher: Bencher, size: usize) {
        encode(bencher, &data(size));
    }

    /// Without the chunk, which the writer does not copy.
    #[divan::bench]
    fn put_head(bencher: Bencher) {
        let frame = data(128 * 1024);
        bencher
            .with_inputs(|| BytesMut::with_capacity(16))
            .bench_refs(|buffer| frame.put_head(buffer));
    }

    fn control(size: usize) -> Frame {
        let mut json = vec![b'x'; size];
        json[0] = b'{';
        Frame::Control(json.into())
    }

    fn data(size: usize) -> Frame {
        let chunk = Bytes::from(vec![7; size]);
        Frame::Data { stream: 7, chunk }
    }

    fn decode(bencher: Bencher, frame: &Frame) {
        let bytes = encoded(frame);
        bencher
            .counter(BytesCount::new(bytes.len()))
            .with_inputs(|| (FrameCodec::new(), bytes.clone()))
            .bench_refs(|(codec, bytes)| codec.decode(bytes).expect("a frame"));
    }

    fn encode(bencher: Bencher, frame: &Frame) {
        bencher
            .counter(BytesCount::new(frame.body().len()))
            .with_inputs(|| (frame.clone(), BytesMut::new()))
            .bench_refs(|(frame, bytes)| FrameCodec::new().encode(frame.clone(), bytes));
    }
}

/// Requests and replies, as JSON.
mod json {
    use super::{
        Bencher, Entry, Get, Kind, Ls, LsReply, Ping, Request, Stat, TimeReply, black_box,
        encode_ok, encode_request,
    };

    #[divan::bench(args = ["ping", "stat", "ls", "get"])]
    fn parse_request(bencher: Bencher, cmd: &str) {
        let path = "reports/2026/may.pdf".to_owned();
        let json = match cmd {
            "ping" => encode_request(7, &Ping {}),
            "stat" => encode_request(7, &Stat { path }),
            "ls" => encode_request(
                7,
                &Ls {
                    path: Some(path),
                    ..Ls::default()
                },
            ),
            _ => encode_request(
                7,
                &Get {
                    path,
                    offset: Some(1 << 30),
                    ..Get::default()
                },
            ),
        };
        bencher.bench(|| Request::parse(black_box(&json)).expect("a request"));
    }

    #[divan::bench]
    fn encode_ping() -> impl Sized {
        let time = black_box(jiff::Timestamp::UNIX_EPOCH);
        encode_ok(7, &TimeReply { time })
    }

    #[divan::bench(args = [5, 100])]
    fn encode_ls(bencher: Bencher, entries: usize) {
        let modified = jiff::Timestamp::UNIX_EPOCH;
        let entry = |number| Entry::new(format!("entry {number}"), Kind::File, 123_456, modified);
        let reply = LsReply {
            entries: (0..entries).map(entry).collect(),
            cursor: None,
        };
        bencher.bench(|| encode_ok(7, black_box(&reply)));
    }
}

/// Paths, from text to an open file.
mod paths {
    use super::{Bencher, Home, VirtualPath, black_box};

    const PATHS: [&str; 3] = ["/a", "/reports/2026/may.pdf", "/a/b/c/d/e/f/g/h"];

    #[divan::bench(args = PATHS)]
    fn parse(path: &str) -> VirtualPath {
        VirtualPath::parse(black_box(path)).expect("a path")
    }

    #[divan::bench]
    fn resolve(bencher: Bencher) {
        let cwd = VirtualPath::parse("/reports/2026").expect("a path");
        bencher.bench(|| cwd.resolve(black_box("../2025/./may.pdf")).expect("a path"));
    }

    #[divan::bench(args = PATHS)]
    fn stat(bencher: Bencher, path: &str) {
        let home = Home::with(&[path]);
        let path = VirtualPath::parse(path).expect("a path");
        bencher.bench(|| home.view.stat(black_box(&path)).expect("it is there"));
    }

    #[divan::bench(args = PATHS)]
    fn open(bencher: Bencher, path: &str) {
        let home = Home::with(&[path]);
        let path = VirtualPath::parse(path).expect("a path");
        bencher.bench(|| home.view.open(black_box(&path), None).expect("it is there"));
    }

    #[divan::bench(args = [5, 100])]
    fn list(bencher: Bencher, entries: usize) {
        let names: Vec<_> = (0..entries).map(|number| format!("/d/{number}")).collect();
        let home = Home::with(&names);
        let path = VirtualPath::parse("/d").expect("a path");
        bencher.bench(|| home.view.list(&path, None, 1000, 60_000).expect("listed"));
    }
}

/// Digests of chunks of a file.
mod digest {
    use super::{Algorithm, Bencher, BytesCount, Hasher, black_box};

    const CHUNKS: [usize; 4] = [4 << 10, 16 << 10, 128 << 10, 1 << 20];

    #[divan::bench(args = CHUNKS)]
    fn blake3(bencher: Bencher, chunk: usize) {
        update(bencher, Algorithm::Blake3, chunk);
    }

    #[divan::bench(args = CHUNKS)]
    fn sha256(bencher: Bencher, chunk: usize) {
        update(bencher, Algorithm::Sha256, chunk);
    }

    #[divan::bench(args = CHUNKS)]
    fn md5(bencher: Bencher, chunk: usize) {
        update(bencher, Algorithm::Md5, chunk);
    }

    fn update(bencher: Bencher, algorithm: Algorithm, chunk: usize) {
        let bytes = vec![7; chunk];
        bencher
            .counter(BytesCount::new(chunk))
            .with_inputs(|| Hasher::new(algorithm))
            .bench_refs(|hasher| hasher.update(black_box(&bytes)));
    }
}

/// Commands through a complete session, from the bytes of the request to those of the reply.
mod dispatch {
    use super::{Bencher, ItemsCount, Ls, MicroSession, Ping, Stat, encode_request};

    /// The numbers of unanswered requests; 1 measures the time of a single command.
    const PIPELINED: [usize; 2] = [1, 32];

    #[divan::bench(args = PIPELINED)]
    fn ping(bencher: Bencher, pipelined: usize) {
        ask(bencher, &encode_request(7, &Ping {}), pipelined);
    }

    #[divan::bench(args = PIPELINED)]
    fn stat(bencher: Bencher, pipelined: usize) {
        let path = "d/entry 1".to_owned();
        ask(bencher, &encode_request(7, &Stat { path }), pipelined);
    }

    #[divan::bench(args = PIPELINED)]
    fn ls(bencher: Bencher, pipelined: usize) {
        let ls = Ls {
            path: Some("d".into()),
            ..Ls::default()
        };
        ask(bencher, &encode_request(7, &ls), pipelined);
    }

    fn ask(bencher: Bencher, request: &[u8], pipelined: usize) {
        let mut session = MicroSession::start();
        bencher
            .counter(ItemsCount::new(pipelined))
            .bench_local(|| session.ask(request, pipelined));
    }
}

/// A frame as it goes over the wire.
fn encoded(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    FrameCodec::new()
        .encode(frame.clone(), &mut bytes)
        .expect("writing to memory");
    bytes
}

/// The home of a user in its own data directory.
struct Home {
    _place: TempDir,
    view: View,
}

impl Home {
    fn with<S: AsRef<str>>(files: &[S]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let store = Store::open(place.path()).expect("a store");
        let home = store.open_home("alice").expect("a home");
        for file in files {
            write(&place.path().join("homes/alice"), file.as_ref());
        }
        let view = View::new(&store, Arc::clone(&home), Vec::new());
        Self {
            _place: place,
            view,
        }
    }
}

fn write(home: &Path, file: &str) {
    let path = home.join(file.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, "content").expect("a file");
}

/// A session with a server in this process, over memory.
struct MicroSession {
    runtime: Runtime,
    stream: DuplexStream,
    _place: TempDir,
}

impl MicroSession {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("threads");
        let place = tempfile::tempdir().expect("a directory");
        let (stream, far) = tokio::io::duplex(64 * 1024);
        let login = runtime.block_on(serve(place.path(), far));
        for number in 0..5 {
            write(
                &place.path().join("homes/alice"),
                &format!("d/entry {number}"),
            );
        }
        let mut session = Self {
            runtime,
            stream,
            _place: place,
        };
        session.ask(&login, 1);
        session
    }

    /// Sends a request a number of times, and reads all replies.
    fn ask(&mut self, request: &[u8], times: usize) {
        let json = Bytes::copy_from_slice(request);
        let bytes = encoded(&Frame::Control(json)).repeat(times);
        let stream = &mut self.stream;
        self.runtime.block_on(async {
            stream.write_all(&bytes).await.expect("it reads");
            for _ in 0..times {
                let length = stream.read_u32().await.expect("it answers");
                let mut reply = vec![0; length as usize];
                stream.read_exact(&mut reply).await.expect("it answers");
                assert!(reply.windows(5).any(|part| part == b"\"ok\":"));
            }
        });
    }
}

/// Serves one stream; returns the request that logs in.
async fn serve(place: &Path, stream: DuplexStream) -> Vec<u8> {
    let accounts = Accounts::open(place).await.expect("accounts");
    let name = "alice".parse().expect("a name");
    let password = Secret::new("correct horse".into());
    let user = haul::accounts::NewUser::default();
    accounts
        .add_user(&name, &password, user)
        .await
        .expect("added");
    let store = Store::open(place).expect("a store");
    let messages = Messages::open(place).await.expect("messages");
    let server = Server::new(accounts, store, messages, Config::default());
    let (reader, writer) = tokio::io::split(stream);
    let peer = Peer::plain((Ipv4Addr::LOCALHOST, 1).into());
    tokio::spawn(async move {
        let shutdown = Shutdown::default();
        server.serve(reader, writer, peer, shutdown).await;
    });
    let login = Login {
        user: Some(name.to_string()),
        password: Some(password),
        ..Login::default()
    };
    encode_request(1, &login)
}

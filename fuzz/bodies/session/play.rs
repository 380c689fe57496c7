//! The client that runs a script and compares every reply with the model.

mod puts;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use haul::connection::Receiver;
use haul::protocol::{
    DigestChoice, ErrorCode, Frame, FrameCodec, MAX_CONTROL, MAX_PAYLOAD, Request, ServerMessage,
    WireError,
};
use haul::storage::VirtualPath;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::deltas::KnownVersions;
use super::expect::{Expect, Stream, Then};
use super::model::FileModel;
use super::predict::Predict;
use super::putting::{UnfinishedPut, data, frame};
use super::script::{Ask, Bad, Script, ScriptStep, SessionEnding, Slot};
use super::{PASSWORD, TIGHT};

/// An `id` that no request of a script has.
const NOBODY: u32 = u32::MAX;

/// The most unanswered requests before the client waits, so that a script stays small.
const MAX_WAITING: usize = 48;

pub(crate) struct Play {
    writer: WriteHalf<DuplexStream>,
    incoming: mpsc::UnboundedReceiver<Frame>,
    /// The most bytes in one write.
    piece: usize,
    racy: bool,
    limit: Option<(u64, u64)>,
    last_id: u32,
    waiting: BTreeMap<u32, Expect>,
    slots: [Option<UnfinishedPut>; Slot::COUNT],
    tree: FileModel,
    cwd: VirtualPath,
    /// The complete contents of all puts.
    contents: HashSet<Arc<Vec<u8>>>,
    versions: KnownVersions,
    fate: Fate,
    /// The server has sent the reason for closing the connection.
    refused: bool,
    reading: JoinHandle<()>,
}

/// Whether the server has a reason to close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// The client has quit.
    Leaves,
    /// The client sent a bad frame.
    Breaks,
    Ended,
}

/// The known state of the files at the end.
pub(crate) struct Known {
    tree: Option<FileModel>,
    contents: HashSet<Arc<Vec<u8>>>,
}

impl Known {
    pub(crate) fn check(&self, disk: &FileModel) {
        if let Some(tree) = &self.tree {
            assert_eq!(disk, tree);
        }
        for content in disk.files() {
            assert!(self.contents.contains(content), "a file that nobody put");
        }
    }
}

impl Play {
    pub(crate) async fn log_in(stream: DuplexStream, user: &str, script: &Script) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (received, incoming) = mpsc::unbounded_channel();
        let reading = tokio::spawn(async move {
            let hour = Duration::from_hours(1);
            let mut frames = Receiver::new(reader, FrameCodec::new(), hour);
            // Valid frames, until the connection is closed.
            while let Some(frame) = frames.next().await.expect("sound frames") {
                let _ = received.send(frame);
            }
        });
        let mut play = Self {
            writer,
            incoming,
            piece: usize::MAX,
            racy: script.racy,
            limit: script.tight.then_some(TIGHT),
            last_id: 0,
            waiting: BTreeMap::new(),
            slots: [const { None }; Slot::COUNT],
            tree: FileModel::default(),
            cwd: VirtualPath::root(),
            contents: HashSet::new(),
            versions: KnownVersions::default(),
            fate: Fate::Lives,
            refused: false,
            reading,
        };
        let login = json!({"cmd": "login", "user": user, "password": PASSWORD});
        play.send_request(login, Expect::new("login", Then::Anything))
            .await;
        play.settle().await;
        play
    }

    pub(crate) async fn step(&mut self, step: &ScriptStep) {
        self.take_what_came();
        if self.fate == Fate::Ended {
            return;
        }
        if self.waiting.len() > MAX_WAITING {
            self.settle().await;
        }
        match step {
            ScriptStep::Ask(ask) => self.command(ask).await,
            ScriptStep::Put(put) => self.put(put).await,
            ScriptStep::Data {
                slot,
                length,
                fill,
                over,
            } => self.data(*slot, *length, *fill, *over).await,
            ScriptStep::End { slot, digest } => self.end_put(*slot, *digest).await,
            ScriptStep::Get {
                path,
                offset,
                length,
                digest,
            } => {
                let digest = digest.map(DigestChoice::from);
                let part = (offset.map(u64::from), length.map(u64::from));
                self.get(&path.text(), part, digest).await;
            }
            ScriptStep::Copy {
                slot,
                offset,
                length,
            } => self.copy(*slot, *offset, *length).await,
            ScriptStep::Chunks(path) => {
                let path = path.text();
                self.receive(|predict| predict.chunks(&path)).await;
            }
            ScriptStep::Ranges {
                path,
                first: (offset, first),
                gap,
                length,
                digest,
            } => {
                let path = path.text();
                let (offset, first) = (u64::from(*offset), u64::from(*first));
                let ranges = [
                    (offset, first),
                    (offset + first + u64::from(*gap), u64::from(*length)),
                ];
                let digest = digest.map(DigestChoice::from);
                self.receive(|predict| predict.ranges(&path, &ranges, digest))
                    .await;
            }
            ScriptStep::Cancel(target) => self.cancel(*target).await,
            ScriptStep::Settle => self.settle().await,
            ScriptStep::Cut(0) => self.piece = usize::MAX,
            ScriptStep::Cut(piece) => self.piece = usize::from(*piece),
            ScriptStep::Bad(bad) => self.bad_frame(bad).await,
        }
    }

    /// Ends the session; returns the known state of the files.
    pub(crate) async fn end(mut self, ending: SessionEnding) -> Known {
        match (self.fate, ending) {
            (Fate::Lives, SessionEnding::Quit) => self.quit_session().await,
            (Fate::Lives, SessionEnding::HalfClose) => self.close_half(&[]).await,
            (Fate::Lives, SessionEnding::Truncate) => self.close_half(&[0, 0, 0, 9, b'{']).await,
            (Fate::Lives, SessionEnding::Vanish) => self.reading.abort(),
            _ => {}
        }
        let changing = self.waiting.values().any(Expect::changes_files);
        Known {
            tree: (!self.racy && !changing).then_some(self.tree),
            contents: self.contents,
        }
    }

    pub(crate) async fn quit(mut self) {
        self.quit_session().await;
    }

    async fn quit_session(&mut self) {
        self.fate = Fate::Leaves;
        self.allow_cancelled();
        let expect = Expect::new("quit", Then::Is(json!({})));
        self.send_request(json!({"cmd": "quit"}), expect).await;
        self.read_to_the_end().await;
        let left = &self.waiting;
        assert!(left.is_empty(), "never answered: {left:?}");
    }

    /// Sends `last`, closes the sending half, and reads to the end.
    async fn close_half(&mut self, last: &[u8]) {
        self.fate = Fate::Leaves;
        self.allow_cancelled();
        self.write(last).await;
        // Fails only if the server has closed already.
        let _ = self.writer.shutdown().await;
        self.read_to_the_end().await;
        let owed =
            |expect: &Expect| matches!(expect.stream, Stream::Receiving { .. } | Stream::Ended);
        let given_up = self.waiting.values().any(owed);
        assert!(!given_up || !last.is_empty(), "{:?}", self.waiting);
    }

    fn allow_cancelled(&mut self) {
        for expect in self.waiting.values_mut() {
            expect.may.push(ErrorCode::Cancelled);
        }
    }

    /// The usage that `df` reports.
    pub(crate) async fn usage(&mut self) -> (u64, u64) {
        self.settle().await;
        let ok = self.ok("df", json!({"cmd": "df"})).await;
        let used = (ok["used"].as_u64(), ok["files"].as_u64());
        (used.0.expect("bytes"), used.1.expect("files"))
    }

    /// Discards the partial uploads that the server keeps.
    pub(crate) async fn discard_partial_uploads(&mut self) {
        self.settle().await;
        let ok = self.ok("uploads", json!({"cmd": "uploads"})).await;
        for upload in ok["uploads"].as_array().expect("a list") {
            let request = json!({"cmd": "discard", "upload": upload["upload"]});
            let expect = Expect::new("discard", Then::Anything);
            self.send_request(request, expect).await;
        }
    }

    /// The reply to a request that cannot fail.
    async fn ok(&mut self, cmd: &'static str, request: Value) -> Value {
        let expect = Expect::new(cmd, Then::Anything);
        let id = self.send_request(request, expect).await;
        loop {
            let Some(Frame::Control(json)) = self.incoming.recv().await else {
                panic!("no reply to {cmd}");
            };
            let mut reply: Value = serde_json::from_slice(&json).expect("JSON");
            self.record(Frame::Control(json));
            if reply["id"] == id {
                return reply["ok"].take();
            }
        }
    }

    async fn command(&mut self, ask: &Ask) {
        match ask {
            Ask::Text(text) => self.text(text).await,
            Ask::Df => self.df().await,
            ask => {
                let Some((_, expect)) = self.predict().ask(ask) else {
                    return;
                };
                self.settle_before(&expect).await;
                let Some((request, expect)) = self.predict().ask(ask) else {
                    return;
                };
                self.send_request(request, expect).await;
                if matches!(ask, Ask::Cd(_)) && !self.racy {
                    // Later paths are relative to this one.
                    self.settle().await;
                }
            }
        }
    }

    /// Sends text that is not a valid request.
    async fn text(&mut self, text: &str) {
        let json = format!("{{{text}");
        let Err(bad) = Request::parse(json.as_bytes()) else {
            return;
        };
        let taken = bad.cmd == Some("put") || self.waiting.contains_key(&bad.id);
        if taken || json.len() > MAX_CONTROL {
            return;
        }
        let refused = [ErrorCode::BadRequest, ErrorCode::Unsupported];
        let expect = Expect::new("text", Then::Anything).fails(refused);
        self.waiting.insert(bad.id, expect);
        self.write_frame(json.as_bytes()).await;
    }

    async fn df(&mut self) {
        let others = self.waiting.values().map(|expect| expect.holds);
        let used = others.fold(self.tree.usage(), |sum, more| {
            (sum.0 + more.0, sum.1 + more.1)
        });
        let exact = self
            .waiting
            .values()
            .all(|expect| expect.touches.is_empty() && expect.holds == (0, 0));
        let then = Then::Df { used, exact };
        self.send_request(json!({"cmd": "df"}), Expect::new("df", then))
            .await;
    }

    async fn get(
        &mut self,
        path: &str,
        part: (Option<u64>, Option<u64>),
        digest: Option<DigestChoice>,
    ) {
        let (_, expect) = self.predict().get(path, part, digest);
        self.settle_before(&expect).await;
        let (request, expect) = self.predict().get(path, part, digest);
        let whole = part == (None, None);
        let expect = Expect {
            stream: Stream::Opening,
            ..expect
        };
        let id = self.send_request(request, expect).await;
        if let (true, Some(expect)) = (self.racy && whole, self.waiting.get_mut(&id)) {
            expect.then = Then::GetWhole;
        }
    }

    /// Sends a request whose reply follows data.
    async fn receive(&mut self, predicted: impl Fn(&Predict<'_>) -> (Value, Expect)) {
        let (_, expect) = predicted(&self.predict());
        self.settle_before(&expect).await;
        let (request, expect) = predicted(&self.predict());
        let expect = Expect {
            stream: Stream::Opening,
            ..expect
        };
        self.send_request(request, expect).await;
    }

    async fn bad_frame(&mut self, bad: &Bad) {
        let bytes = match *bad {
            Bad::Empty => vec![0; 4],
            Bad::TooLong(length) => {
                let limit = u32::try_from(MAX_PAYLOAD).expect("a u32");
                length.max(limit + 1).to_be_bytes().to_vec()
            }
            Bad::Mark(b'{' | 1, length) => vec![0, 0, 0, length.max(1), b'['],
            Bad::Mark(mark, length) => vec![0, 0, 0, length.max(1), mark],
            Bad::NoStream(length) => vec![0, 0, 0, length % 4 + 1, 1],
            Bad::Stray => data(NOBODY, b"stray"),
        };
        self.breaks(bytes).await;
    }

    /// Sends bytes that end the session.
    async fn breaks(&mut self, bytes: Vec<u8>) {
        self.fate = Fate::Breaks;
        self.allow_cancelled();
        self.write(&bytes).await;
        self.read_to_the_end().await;
    }

    fn predict(&self) -> Predict<'_> {
        Predict {
            tree: &self.tree,
            cwd: &self.cwd,
        }
    }

    /// The expectation that holds for every order.
    fn loosened(&self, expect: Expect) -> Expect {
        let certain = [
            "login", "ping", "whoami", "hello", "help", "end", "text", "quit", "cancel",
        ];
        if !self.racy || certain.contains(&expect.cmd) {
            return expect;
        }
        Expect {
            stream: expect.stream,
            ..Expect::anything(expect.cmd)
        }
    }

    /// If the pending requests together may exceed the quota, each may be refused.
    fn note_pressure(&mut self) {
        let Some(limit) = self.limit else {
            return;
        };
        let holds = self.waiting.values().map(|expect| expect.holds);
        let most = holds.fold(self.tree.usage(), |sum, more| {
            (sum.0 + more.0, sum.1 + more.1)
        });
        if most.0 > limit.0 || most.1 > limit.1 {
            for expect in self.waiting.values_mut() {
                if expect.holds != (0, 0) {
                    expect.may.push(ErrorCode::QuotaExceeded);
                }
            }
        }
    }

    async fn send_request(&mut self, mut request: Value, expect: Expect) -> u32 {
        let id = self.next_id();
        request["id"] = id.into();
        self.waiting.insert(id, self.loosened(expect));
        self.note_pressure();
        self.write_frame(request.to_string().as_bytes()).await;
        id
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    async fn write_frame(&mut self, payload: &[u8]) {
        self.write(&frame(payload)).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece.max(1)) {
            // The server may have closed the connection; then the read reports it.
            if self.writer.write_all(piece).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the running requests whose order with this one matters.
    async fn settle_before(&mut self, expect: &Expect) {
        let meets = |other: &Expect| {
            let touches = &expect.touches;
            touches
                .iter()
                .any(|own| other.touches.iter().any(|touch| own.meets(touch)))
        };
        if !self.racy && self.waiting.values().any(meets) {
            self.settle().await;
        }
    }

    /// Waits for every reply that needs no further action of the client.
    async fn settle(&mut self) {
        while self.waiting.values().any(Expect::is_running) {
            match self.incoming.recv().await {
                Some(frame) => self.record(frame),
                None => panic!("it hung up before {:?}", self.waiting),
            }
        }
    }

    async fn read_to_the_end(&mut self) {
        while let Some(frame) = self.incoming.recv().await {
            self.record(frame);
        }
        assert_eq!(self.refused, self.fate == Fate::Breaks);
        self.fate = Fate::Ended;
    }

    fn take_what_came(&mut self) {
        while let Ok(frame) = self.incoming.try_recv() {
            self.record(frame);
        }
    }

    fn record(&mut self, frame: Frame) {
        match frame {
            Frame::Data { stream, chunk } => {
                let expect = self.waiting.get_mut(&stream);
                match expect.map(|expect| &mut expect.stream) {
                    Some(Stream::Receiving { length, content }) => {
                        content.extend_from_slice(&chunk);
                        assert!(!chunk.is_empty() && content.len() as u64 <= *length);
                    }
                    other => panic!("data on stream {stream}: {other:?}"),
                }
            }
            Frame::Control(json) => match ServerMessage::parse(&json).expect("a message") {
                ServerMessage::Begin(id, begin) => {
                    let begin = serde_json::from_str(begin.get()).expect("JSON");
                    self.waiting.get_mut(&id).expect("asked").begin(&begin);
                }
                ServerMessage::Reply(id, reply) => {
                    let expect = self
                        .waiting
                        .remove(&id)
                        .expect("asked, and not answered yet");
                    self.answered(
                        expect,
                        reply.map(|ok| serde_json::from_str(ok.get()).expect("JSON")),
                    );
                }
                ServerMessage::Refusal(error) => {
                    assert_eq!((self.fate, error.code), (Fate::Breaks, ErrorCode::BadFrame));
                    self.refused = true;
                }
                ServerMessage::Event(event) => panic!("{event:?}"),
            },
        }
    }

    fn answered(&mut self, expect: Expect, reply: Result<Value, WireError>) {
        match reply {
            Err(error) => expect.check_error(&error),
            Ok(ok) => {
                if let (Then::GetWhole, Stream::Receiving { content, .. }) =
                    (&expect.then, &expect.stream)
                {
                    assert!(
                        self.contents.contains(content),
                        "a file that nobody put: {ok}"
                    );
                }
                self.versions.note(&expect.then, &ok);
                expect.succeed(&ok, &mut self.tree, &mut self.cwd);
                let (used, limit) = (self.tree.usage(), self.limit);
                let fits = limit.is_none_or(|limit| used.0 <= limit.0 && used.1 <= limit.1);
                assert!(fits, "{used:?} are over the quota");
            }
        }
    }
}

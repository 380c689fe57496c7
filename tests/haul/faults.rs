//! Fault injection with `strace`: every system call that an upload makes on the disk fails once
//! with each of several errors, or kills the server. Without `strace` the test is skipped.
//!
//! By default a run tries one fault per call; with `HAUL_FAULTS=all` it tries every fault.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::blocking_client::{BlockingSession, PATIENCE};
use crate::daemon::{ServerProcess, operate, wait_until_tidy};
use crate::random::Chance;
use crate::strace::{Strace, SystemCall, assert_lasts, calls};

/// A fault of a system call.
struct InjectedFault {
    /// The fault in the syntax of `strace`.
    how: &'static str,
    /// The error code of the reply, if there is a reply.
    code: Option<&'static str>,
}

const FAULTS: [InjectedFault; 4] = [
    InjectedFault {
        how: "error=EIO",
        code: Some("internal"),
    },
    InjectedFault {
        how: "error=ENOSPC",
        code: Some("no_space"),
    },
    InjectedFault {
        how: "error=EDQUOT",
        code: Some("no_space"),
    },
    InjectedFault {
        how: "signal=KILL",
        code: None,
    },
];

/// The most attempts to hit a call.
const TRIES: usize = 40;

/// The content of all files of a user.
type UserFiles = BTreeMap<String, Vec<u8>>;

/// An upload, and the files before and after it.
struct Scenario {
    name: &'static str,
    request: Value,
    /// The bytes that an earlier attempt has uploaded.
    cut_off_at: usize,
    before: UserFiles,
    after: UserFiles,
}

impl Scenario {
    fn upload(&self, client: &mut BlockingSession) -> io::Result<Value> {
        if self.cut_off_at > 0 {
            return client.go_on(self.request.clone(), self.content());
        }
        client.put(self.request.clone(), self.content())
    }

    fn content(&self) -> &[u8] {
        &self.after[self.request["path"].as_str().expect("a path")]
    }
}

fn scenarios() -> [Scenario; 3] {
    let mut chance = Chance::new(1);
    let (old, new) = (chance.bytes(250_000), chance.bytes(260_000));
    let before = UserFiles::from([("/old.bin".into(), old.clone())]);
    let replaced = UserFiles::from([("/old.bin".into(), new.clone())]);
    let mut with_sibling = before.clone();
    with_sibling.insert("/a/b/new.bin".into(), new);
    [
        Scenario {
            name: "replacing",
            request: json!({"path": "/old.bin", "size": 260_000, "modified": "2020-01-01T00:00:00Z"}),
            cut_off_at: 0,
            before: before.clone(),
            after: replaced.clone(),
        },
        Scenario {
            name: "resumed",
            request: json!({"path": "/old.bin", "size": 260_000}),
            cut_off_at: 150_000,
            before: before.clone(),
            after: replaced,
        },
        Scenario {
            name: "new",
            request: json!({"path": "/a/b/new.bin", "parents": true}),
            cut_off_at: 0,
            before,
            after: with_sibling,
        },
    ]
}

/// The server under test, on a data directory with known content.
struct Bench {
    temp_dir: TempDir,
    token: String,
}

impl Bench {
    fn new() -> Self {
        let temp_dir = tempfile::tempdir().expect("a directory");
        let data = temp_dir.path().join("data");
        operate(&data, "user add alice --quota 1MiB", "hunter2 hunter2\n");
        let token = operate(&data, "token add alice", "");
        Self { temp_dir, token }
    }

    fn data(&self) -> PathBuf {
        self.temp_dir.path().join("data")
    }

    /// Starts a server with a single disk thread, which is traced.
    fn start(&self) -> (ServerProcess, BlockingSession) {
        let settings = [("HAUL_LIMITS_DISK_THREADS", "1")];
        let daemon = ServerProcess::start_on_with(&self.data(), &settings);
        let client = BlockingSession::log_in(&daemon.address, &self.token).expect("it listens");
        (daemon, client)
    }

    /// All files on the disk.
    fn files(&self) -> UserFiles {
        let home = self.data().join("homes/alice");
        let entries = WalkDir::new(&home).into_iter();
        let files = entries.map(|entry| entry.expect("readable"));
        let files = files.filter(|entry| entry.file_type().is_file());
        files
            .map(|entry| {
                let inner = entry.path().strip_prefix(&home).expect("below");
                let content = fs::read(entry.path()).expect("readable");
                (format!("/{}", inner.display()), content)
            })
            .collect()
    }

    /// Asserts that exactly the `expected` files exist, and that the quota is charged exactly.
    fn assert_holds(&self, client: &mut BlockingSession, expected: &UserFiles) {
        let found = self.files();
        let names = |files: &UserFiles| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected));
        assert!(found == *expected, "a file is torn");
        for (path, content) in expected {
            let (read, reply) = client.get(path).expect("it lives");
            assert!(read == *content, "{path}: {reply}");
        }
        let kept = client.ok(&json!({"cmd": "uploads"}));
        let kept = kept["uploads"].as_array().expect("a list").iter();
        let kept: Vec<_> = kept.map(|kept| kept["offset"].as_u64()).collect();
        let entries = WalkDir::new(self.data().join("homes/alice")).min_depth(1);
        let entries = entries.into_iter().count() + kept.len();
        let bytes: usize = expected.values().map(Vec::len).sum();
        let bytes = bytes as u64 + kept.iter().flatten().sum::<u64>();
        let df = client.ok(&json!({"cmd": "df"}));
        let used = (&df["used"], &df["files"]);
        assert_eq!(used, (&json!(bytes), &json!(entries)));
    }

    /// Asserts what [`Self::assert_holds`] does, and that staging holds only kept uploads in the
    /// end.
    fn assert_clean(&self, client: &mut BlockingSession, expected: &UserFiles) {
        self.assert_holds(client, expected);
        let kept = client.ok(&json!({"cmd": "uploads"}));
        let kept = kept["uploads"].as_array().expect("a list").len();
        wait_until_tidy(&self.data(), 2 * kept);
        assert_eq!(self.staged(), 2 * kept, "bytes and a record of each");
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.data().join("staging"))
            .expect("staging")
            .count()
    }

    fn prepare(&self, client: &mut BlockingSession, scenario: &Scenario) {
        let _ = client.call(&json!({"cmd": "rm", "path": "/a", "recursive": true}));
        let kept = client.ok(&json!({"cmd": "uploads"}));
        for kept in kept["uploads"].as_array().expect("a list") {
            client.ok(&json!({"cmd": "discard", "upload": kept["upload"]}));
        }
        for (path, content) in &scenario.before {
            let reply = client
                .put(json!({"path": path}), content)
                .expect("it lives");
            assert!(reply["ok"].is_object(), "{reply}");
        }
        if scenario.cut_off_at > 0 {
            self.cut_off(client, scenario);
        }
        self.assert_clean(client, &scenario.before);
    }

    /// Begins the upload in a session that ends, and waits until the server has noticed.
    fn cut_off(&self, client: &mut BlockingSession, scenario: &Scenario) {
        let mut other = BlockingSession::log_in(&client.peer(), &self.token).expect("it listens");
        let mut request = scenario.request.clone();
        request["id"] = json!(1);
        request["cmd"] = json!("put");
        other.send(&request).expect("it reads");
        // Unread data would turn the end of the session into a reset, which loses data.
        let begin = other.reply().expect("it lives");
        assert!(begin["begin"].is_object(), "{begin}");
        let part = &scenario.content()[..scenario.cut_off_at];
        other.send_data(1, part).expect("it reads");
        drop(other);
        let listed =
            |client: &mut BlockingSession| client.ok(&json!({"cmd": "uploads"}))["uploads"].take();
        let started = Instant::now();
        while listed(client) == json!([]) {
            assert!(started.elapsed() < PATIENCE, "what was cut off is not kept");
            std::thread::yield_now();
        }
    }

    /// Uploads while the disk thread is traced, and possibly faults are injected.
    fn traced(&self, scenario: &Scenario, inject: Option<&str>) -> io::Result<Traced> {
        let (daemon, mut line) = self.start();
        self.prepare(&mut line, scenario);
        let thread = self.disk_thread(daemon.id(), &mut line)?;
        let inject = inject.map_or("trace=all".into(), |inject| format!("inject={inject}"));
        let strace = Strace::attach(thread, &["-e", &inject], self.temp_dir.path())?;
        let answer = scenario.upload(&mut line);
        let calls = calls(&strace.detach(answer.is_err()), &self.data());
        Ok(Traced {
            daemon,
            line,
            answer,
            calls,
        })
    }

    /// The disk thread of the server.
    fn disk_thread(&self, process: Pid, client: &mut BlockingSession) -> io::Result<Pid> {
        let strace = Strace::attach(process, &["-f"], self.temp_dir.path())?;
        client.ok(&json!({"cmd": "stat", "path": "/old.bin"}));
        let trace = strace.detach(false);
        let data = self.data();
        let data = data.to_str().expect("text");
        let call = trace.lines().find(|client| client.contains(data));
        let id = call.and_then(|call| call.split_whitespace().next()?.parse().ok());
        Ok(id
            .and_then(Pid::from_raw)
            .unwrap_or_else(|| panic!("no call on the disk in {trace}")))
    }

    /// Injects a fault into the `nth` call of this name; returns the result, or `None` if another
    /// call was hit.
    fn strike(
        &self,
        scenario: &Scenario,
        aim: &SystemCall,
        nth: usize,
        fault: &InjectedFault,
    ) -> Option<UploadResult> {
        let inject = format!("{}:{}:when={nth}", aim.name, fault.how);
        let traced = self.traced(scenario, Some(&inject));
        let Traced {
            daemon,
            mut line,
            answer,
            calls,
        } = traced.expect("strace works");
        let is_aim = |call: &SystemCall| (&call.name, call.ordinal) == (&aim.name, aim.ordinal);
        if !calls.iter().any(|call| call.is_hit && is_aim(call)) {
            return None;
        }
        let came = match (answer, fault.code) {
            (Ok(reply), _) if reply["ok"].is_object() => UploadResult::Acknowledged,
            (Ok(reply), Some(code)) => {
                assert_eq!(reply["error"]["code"], code, "{reply}");
                UploadResult::Refused
            }
            (Err(_), None) => UploadResult::Killed,
            (answer, _) => panic!("{answer:?}"),
        };
        let expected = match came {
            UploadResult::Acknowledged => &scenario.after,
            UploadResult::Killed if self.files() == scenario.after => &scenario.after,
            UploadResult::Killed | UploadResult::Refused => &scenario.before,
        };
        if came != UploadResult::Killed {
            self.assert_holds(&mut line, expected);
            let later = line.put(json!({"path": "/later.bin"}), b"later");
            let later = later.expect("it lives");
            assert!(later["ok"].is_object(), "{later}");
            line.ok(&json!({"cmd": "rm", "path": "/later.bin"}));
        }
        drop(daemon);
        let (_daemon, mut line) = self.start();
        self.assert_clean(&mut line, expected);
        let again = scenario.upload(&mut line).expect("it lives");
        assert!(again["ok"].is_object(), "{again}");
        self.assert_clean(&mut line, &scenario.after);
        Some(came)
    }
}

/// A traced upload.
struct Traced {
    daemon: ServerProcess,
    line: BlockingSession,
    answer: io::Result<Value>,
    calls: Vec<SystemCall>,
}

/// The result of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum UploadResult {
    Acknowledged,
    Refused,
    Killed,
}

#[test]
fn a_fault_at_any_system_call_of_an_upload_damages_nothing() {
    let bench = Bench::new();
    let everything = std::env::var("HAUL_FAULTS").is_ok_and(|faults| faults == "all");
    let mut tally: BTreeMap<_, usize> = BTreeMap::new();
    let mut turn = 0;
    for scenario in scenarios() {
        let Traced { answer, calls, .. } = match bench.traced(&scenario, None) {
            Ok(traced) => traced,
            Err(error) => return eprintln!("SKIPPED, strace is not to be had here: {error}"),
        };
        assert!(answer.expect("it lives")["ok"].is_object());
        assert!(calls.len() > 10, "{calls:?}");
        assert_lasts(&calls);
        for aim in &calls {
            turn += 1;
            let faults = if everything {
                &FAULTS[..]
            } else {
                std::slice::from_ref(&FAULTS[turn % FAULTS.len()])
            };
            for fault in faults {
                // Other calls of the same name may precede it, such as writes that wake a thread.
                let nths = (0..TRIES).map(|n| aim.ordinal + n % 5);
                let mut came = nths.filter_map(|nth| bench.strike(&scenario, aim, nth, fault));
                let came = came
                    .next()
                    .unwrap_or_else(|| panic!("{aim:?} is never hit"));
                println!("{} {} {}: {came:?}", scenario.name, aim.name, fault.how);
                *tally.entry((fault.how, came)).or_default() += 1;
            }
        }
    }
    println!("{} faults: {tally:?}", tally.values().sum::<usize>());
}

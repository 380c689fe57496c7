//! Every system call that an upload makes on the disk fails once, with each of several errors, or
//! is the one at which the server is killed. `strace` does that; where it is not to be had the test
//! says so and passes.
//!
//! A usual run tries one fault for each call, with `HAUL_FAULTS=all` it tries every fault.

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

/// What is done to a system call.
struct InjectedFault {
    /// As `strace` says it.
    how: &'static str,
    /// Of the error that is answered, if there is an answer.
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

/// How often a call is aimed at before it is given up.
const TRIES: usize = 40;

/// The content of all files of a user.
type UserFiles = BTreeMap<String, Vec<u8>>;

/// An upload, and what is there before and after it.
struct Scenario {
    name: &'static str,
    request: Value,
    /// So many bytes are there of an earlier attempt.
    cut_off_at: usize,
    before: UserFiles,
    after: UserFiles,
}

impl Scenario {
    fn upload(&self, line: &mut BlockingSession) -> io::Result<Value> {
        if self.cut_off_at > 0 {
            return line.go_on(self.request.clone(), self.content());
        }
        line.put(self.request.clone(), self.content())
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
    let mut beside = before.clone();
    beside.insert("/a/b/new.bin".into(), new);
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
            after: beside,
        },
    ]
}

/// The server under test, on a disk whose content is known.
struct Bench {
    place: TempDir,
    token: String,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let data = place.path().join("data");
        operate(&data, "user add alice --quota 1MiB", "hunter2 hunter2\n");
        let token = operate(&data, "token add alice", "");
        Self { place, token }
    }

    fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// With a single thread that works on the disk, the one to trace.
    fn start(&self) -> (ServerProcess, BlockingSession) {
        let settings = [("HAUL_LIMITS_DISK_THREADS", "1")];
        let daemon = ServerProcess::start_on_with(&self.data(), &settings);
        let line = BlockingSession::log_in(&daemon.address, &self.token).expect("it listens");
        (daemon, line)
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

    /// Asserts that exactly `expected` is there, and that it is charged to the byte.
    fn assert_holds(&self, line: &mut BlockingSession, expected: &UserFiles) {
        let found = self.files();
        let names = |files: &UserFiles| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected));
        assert!(found == *expected, "a file is torn");
        for (path, content) in expected {
            let (read, reply) = line.get(path).expect("it lives");
            assert!(read == *content, "{path}: {reply}");
        }
        let kept = line.ok(&json!({"cmd": "uploads"}));
        let kept = kept["uploads"].as_array().expect("a list").iter();
        let kept: Vec<_> = kept.map(|kept| kept["offset"].as_u64()).collect();
        let entries = WalkDir::new(self.data().join("homes/alice")).min_depth(1);
        let entries = entries.into_iter().count() + kept.len();
        let bytes: usize = expected.values().map(Vec::len).sum();
        let bytes = bytes as u64 + kept.iter().flatten().sum::<u64>();
        let df = line.ok(&json!({"cmd": "df"}));
        let used = (&df["used"], &df["files"]);
        assert_eq!(used, (&json!(bytes), &json!(entries)));
    }

    /// As [`Self::assert_holds`], and that staging comes to hold what is kept and nothing else.
    fn assert_clean(&self, line: &mut BlockingSession, expected: &UserFiles) {
        self.assert_holds(line, expected);
        let kept = line.ok(&json!({"cmd": "uploads"}));
        let kept = kept["uploads"].as_array().expect("a list").len();
        wait_until_tidy(&self.data(), 2 * kept);
        assert_eq!(self.staged(), 2 * kept, "bytes and a record of each");
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.data().join("staging"))
            .expect("staging")
            .count()
    }

    fn prepare(&self, line: &mut BlockingSession, scenario: &Scenario) {
        let _ = line.call(&json!({"cmd": "rm", "path": "/a", "recursive": true}));
        let kept = line.ok(&json!({"cmd": "uploads"}));
        for kept in kept["uploads"].as_array().expect("a list") {
            line.ok(&json!({"cmd": "discard", "upload": kept["upload"]}));
        }
        for (path, content) in &scenario.before {
            let reply = line.put(json!({"path": path}), content).expect("it lives");
            assert!(reply["ok"].is_object(), "{reply}");
        }
        if scenario.cut_off_at > 0 {
            self.cut_off(line, scenario);
        }
        self.assert_clean(line, &scenario.before);
    }

    /// Begins the upload in a session that ends, and waits until the server has seen that.
    fn cut_off(&self, line: &mut BlockingSession, scenario: &Scenario) {
        let mut other = BlockingSession::log_in(&line.peer(), &self.token).expect("it listens");
        let mut request = scenario.request.clone();
        request["id"] = json!(1);
        request["cmd"] = json!("put");
        other.send(&request).expect("it reads");
        // What is left unread would turn the end of the session into a reset, which loses data.
        let begin = other.reply().expect("it lives");
        assert!(begin["begin"].is_object(), "{begin}");
        let part = &scenario.content()[..scenario.cut_off_at];
        other.send_data(1, part).expect("it reads");
        drop(other);
        let listed =
            |line: &mut BlockingSession| line.ok(&json!({"cmd": "uploads"}))["uploads"].take();
        let started = Instant::now();
        while listed(line) == json!([]) {
            assert!(started.elapsed() < PATIENCE, "what was cut off is not kept");
            std::thread::yield_now();
        }
    }

    /// Uploads while the disk thread is traced, and perhaps hindered.
    fn traced(&self, scenario: &Scenario, inject: Option<&str>) -> io::Result<Traced> {
        let (daemon, mut line) = self.start();
        self.prepare(&mut line, scenario);
        let thread = self.disk_thread(daemon.id(), &mut line)?;
        let inject = inject.map_or("trace=all".into(), |inject| format!("inject={inject}"));
        let strace = Strace::attach(thread, &["-e", &inject], self.place.path())?;
        let answer = scenario.upload(&mut line);
        let calls = calls(&strace.detach(answer.is_err()), &self.data());
        Ok(Traced {
            daemon,
            line,
            answer,
            calls,
        })
    }

    /// The thread of the server that works on the disk: it is the one that is seen to.
    fn disk_thread(&self, process: Pid, line: &mut BlockingSession) -> io::Result<Pid> {
        let strace = Strace::attach(process, &["-f"], self.place.path())?;
        line.ok(&json!({"cmd": "stat", "path": "/old.bin"}));
        let trace = strace.detach(false);
        let data = self.data();
        let data = data.to_str().expect("text");
        let call = trace.lines().find(|line| line.contains(data));
        let id = call.and_then(|call| call.split_whitespace().next()?.parse().ok());
        Ok(id
            .and_then(Pid::from_raw)
            .unwrap_or_else(|| panic!("no call on the disk in {trace}")))
    }

    /// Has the `nth` call of this name go wrong; what came of it, or nothing if that was not the
    /// call that was aimed at.
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

/// An upload that was traced.
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
fn a_fault_at_any_system_call_of_an_upload_harms_nothing() {
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
                // Its like elsewhere may come before it, such as writes that wake a thread.
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

use super::*;

const DAY: Date = Date::constant(2026, 3, 1);

/// A log in a directory of its own.
struct LogDirectory(tempfile::TempDir);

impl LogDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("haul.log")
    }

    fn open(&self, day: Date, keep: usize) -> DailyFile {
        DailyFile::open_on_date(day, self.path(), keep, None).expect("opens")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).expect("text")
    }

    /// The names in the directory, sorted.
    fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().expect("readable");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let names = entries.map(name).map(std::ffi::OsString::into_string);
        let mut names: Vec<_> = names.map(|name| name.expect("UTF-8")).collect();
        names.sort();
        names
    }
}

fn write(log: &mut DailyFile, day: Date, now: Instant, line: &str) {
    log.write_on_date(day, now, line.as_bytes())
        .expect("written");
}

/// A log that keeps three files, with lines on the last three days before [`DAY`].
fn log_of_three_days() -> (LogDirectory, DailyFile) {
    let directory = LogDirectory::new();
    let mut log = directory.open(Date::constant(2026, 2, 26), 3);
    for day in [26, 27, 28] {
        write(
            &mut log,
            Date::constant(2026, 2, day),
            Instant::now(),
            "old\n",
        );
    }
    (directory, log)
}

#[test]
fn the_current_file_has_the_name_of_the_log_and_earlier_ones_have_their_day() {
    let (directory, mut log) = log_of_three_days();
    assert_eq!(
        directory.names(),
        ["haul.log", "haul.log.2026-02-26", "haul.log.2026-02-27"]
    );
    write(&mut log, DAY, Instant::now(), "new\n");
    assert_eq!(directory.read("haul.log"), "new\n");
    assert_eq!(directory.read("haul.log.2026-02-28"), "old\n");
}

#[test]
fn a_log_is_continued_on_the_same_day_and_rotated_if_it_is_of_an_earlier_one() {
    let directory = LogDirectory::new();
    for _ in 0..2 {
        let mut log = DailyFile::open(&directory.path(), 9).expect("opens");
        log.write_all(b"today\n").expect("written");
    }
    assert_eq!(directory.read("haul.log"), "today\ntoday\n");
    // The day is that of the last line.
    let yesterday = today().yesterday().expect("a date");
    let file = File::options()
        .append(true)
        .open(directory.path())
        .expect("open");
    let long_ago = Timestamp::now() - Duration::from_hours(24);
    file.set_modified(long_ago.into()).expect("set");
    DailyFile::open(&directory.path(), 9).expect("opens");
    assert_eq!(directory.read("haul.log"), "");
    assert_eq!(
        directory.read(&format!("haul.log.{yesterday}")),
        "today\ntoday\n"
    );
}

#[test]
fn only_the_files_of_the_last_days_are_kept_and_other_files_are_not_touched() {
    let directory = LogDirectory::new();
    let others = [
        "haul.db",
        "haul.log.2001-01-03.gz",
        "haul.log.old",
        "haul.log2001-01-01",
        "other.2001-01-01",
    ];
    let old = [
        "haul.log.2001-01-01",
        "haul.log.2001-01-02",
        "haul.log.2001-01-02.1",
    ];
    for name in others.into_iter().chain(old).chain(["haul.log.2001-01-03"]) {
        directory.write(name, "old\n");
    }
    let mut log = directory.open(DAY, 2);
    let now = Instant::now();
    write(&mut log, DAY, now, "new\n");
    assert_eq!(directory.names().len(), 10, "the day has only begun");
    write(&mut log, DAY, now + REMOVAL_DELAY, "newer\n");
    let mut expected: Vec<_> = others.to_vec();
    expected.extend(["haul.log", "haul.log.2001-01-03"]);
    expected.sort_unstable();
    assert_eq!(directory.names(), expected);
    assert_eq!(directory.read("haul.log"), "new\nnewer\n");
}

#[test]
fn files_of_later_days_are_never_removed() {
    let (directory, mut log) = log_of_three_days();
    // The clock was ahead for a while.
    for later in ["2030-01-01", "2030-01-02", "2030-01-03"] {
        directory.write(&format!("haul.log.{later}"), "later\n");
    }
    let now = Instant::now();
    write(&mut log, DAY, now, "one\n");
    write(&mut log, DAY, now + REMOVAL_DELAY, "two\n");
    assert_eq!(
        directory.names(),
        [
            "haul.log",
            "haul.log.2026-02-27",
            "haul.log.2026-02-28",
            "haul.log.2030-01-01",
            "haul.log.2030-01-02",
            "haul.log.2030-01-03"
        ]
    );
    assert_eq!(directory.read("haul.log"), "one\ntwo\n");
}

#[test]
fn a_clock_that_is_wrong_for_a_moment_removes_and_replaces_nothing() {
    let (directory, mut log) = log_of_three_days();
    let (right, start) = (log.day, Instant::now());
    let second = Duration::from_secs(1);
    for (day, after) in [
        (right, 0),
        (Date::constant(2038, 1, 19), 1),
        (right, 2),
        (Date::constant(2039, 1, 1), 3),
        (right, 4),
        (right, 100),
    ] {
        write(&mut log, day, start + second * after, "line\n");
    }
    assert_eq!(
        directory.names(),
        [
            "haul.log",
            "haul.log.2026-02-26",
            "haul.log.2026-02-27",
            "haul.log.2026-02-28",
            "haul.log.2026-02-28.1"
        ]
    );
    assert_eq!(directory.read("haul.log.2026-02-28"), "old\nline\n");
    assert_eq!(directory.read("haul.log.2026-02-28.1"), "line\nline\n");
}

#[test]
fn a_log_that_was_only_opened_has_removed_nothing() {
    let (directory, log) = log_of_three_days();
    let mut again = directory.open(log.day, 1);
    again.write_all(b"cannot start\n").expect("written");
    assert!(directory.names().len() >= 3);
}

#[test]
fn a_log_continues_in_the_old_file_if_there_can_be_no_new_one() {
    let (directory, mut log) = log_of_three_days();
    std::fs::rename(directory.path(), directory.0.path().join("moved")).expect("renamed");
    std::fs::create_dir(directory.path()).expect("made");
    write(&mut log, DAY, Instant::now(), "late\n");
    assert_eq!(directory.read("moved"), "old\nlate\n");
    std::fs::remove_dir(directory.path()).expect("removed");
    write(&mut log, DAY, Instant::now(), "new\n");
    assert_eq!(directory.read("haul.log"), "new\n");
}

#[test]
fn a_file_that_another_program_rotates_is_created_again() {
    let directory = LogDirectory::new();
    let mut log = directory.open(DAY, 9);
    let start = Instant::now();
    write(&mut log, DAY, start, "one\n");
    std::fs::rename(directory.path(), directory.0.path().join("haul.log.1")).expect("renamed");
    write(&mut log, DAY, start + NAME_CHECK_INTERVAL, "two\n");
    assert_eq!(directory.read("haul.log.1"), "one\n");
    assert_eq!(directory.read("haul.log"), "two\n");
}

#[test]
fn two_processes_rotate_a_log_once() {
    let directory = LogDirectory::new();
    let yesterday = DAY.yesterday().expect("a date");
    let mut logs = [directory.open(yesterday, 9), directory.open(yesterday, 9)];
    for day in [yesterday, DAY] {
        for log in &mut logs {
            write(log, day, Instant::now(), "line\n");
        }
    }
    assert_eq!(directory.names(), ["haul.log", "haul.log.2026-02-28"]);
    assert_eq!(directory.read("haul.log"), "line\nline\n");
}

#[test]
fn only_owner_and_group_can_read_it() {
    let (directory, _log) = log_of_three_days();
    for name in directory.names() {
        let metadata = directory.0.path().join(name).metadata().expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, FILE_MODE);
    }
}

#[test]
fn a_link_with_the_name_of_the_log_is_refused() {
    let directory = LogDirectory::new();
    directory.write("victim", "kept");
    let victim = directory.0.path().join("victim");
    let path = directory.path();
    for is_symbolic in [true, false] {
        let link = || {
            if is_symbolic {
                std::os::unix::fs::symlink(&victim, &path).expect("linked");
            } else {
                std::fs::hard_link(&victim, &path).expect("linked");
            }
        };
        link();
        DailyFile::open(&path, 9).expect_err("a link");
        std::fs::remove_file(&path).expect("removed");
        let mut log = directory.open(DAY, 9);
        std::fs::remove_file(&path).expect("removed");
        link();
        let later = Instant::now() + NAME_CHECK_INTERVAL;
        write(&mut log, DAY, later, "line\n");
        std::fs::remove_file(&path).expect("removed");
    }
    assert_eq!(directory.read("victim"), "kept");
}

#[test]
fn a_missing_directory_is_made_and_a_path_without_a_name_is_refused() {
    let directory = LogDirectory::new();
    DailyFile::open(&directory.0.path().join("a/b/haul.log"), 1).expect("made");
    assert!(DailyFile::open(Path::new("/"), 1).is_err());
}

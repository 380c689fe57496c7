//! The log file: a new one every day, and no more of them than wanted.
//!
//! Files of earlier days are removed only once the current day has lasted for a while by the monotonic
//! clock: a wall clock that is wrong for a moment removes nothing, and neither does a server that is
//! refused at its start. The current file and files of later days are never removed.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;

use crate::ownership::give_to_owner_of;

/// The mode of the log, which says who did what with which files.
const FILE_MODE: u32 = 0o640;

/// How long a day must have lasted before files are removed for it.
const REMOVAL_DELAY: Duration = Duration::from_mins(1);

/// Appends to `<path>.<date>`, whoever else does.
#[derive(Debug)]
pub(crate) struct DailyFile {
    path: PathBuf,
    keep: usize,
    today: Date,
    file: File,
    /// When old files are to be removed, unless the day changes before.
    removal_due: Option<Instant>,
    /// A directory whose owner also writes there: what is new becomes theirs.
    shared_with: Option<PathBuf>,
}

impl DailyFile {
    pub(crate) fn open(path: &Path, keep: usize) -> Result<Self, String> {
        Self::open_shared(path, keep, None)
    }

    /// As [`Self::open`]. What root makes anew goes to the owner of the directory `shared_with`.
    pub(crate) fn open_shared(
        path: &Path,
        keep: usize,
        shared_with: Option<&Path>,
    ) -> Result<Self, String> {
        let name = path.file_name().ok_or("it has no file name")?;
        name.to_str().ok_or("its name is not UTF-8")?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let (path, today) = (directory.join(name), today());
        let opened = make_dir(directory, shared_with)
            .and_then(|()| open_for_date(today, &path, shared_with));
        Ok(Self {
            file: opened.map_err(|error| error.to_string())?,
            path,
            keep,
            today,
            removal_due: Some(Instant::now() + REMOVAL_DELAY),
            shared_with: shared_with.map(Path::to_owned),
        })
    }

    /// Writes to the file of the day `today`, at the monotonic time `now`.
    fn write_on_date(&mut self, today: Date, now: Instant, line: &[u8]) -> io::Result<usize> {
        // If the file of a new day cannot be opened, the log goes on in the old one.
        if self.today != today
            && let Ok(file) = open_for_date(today, &self.path, self.shared_with.as_deref())
        {
            self.file = file;
            self.today = today;
            self.removal_due = Some(now + REMOVAL_DELAY);
        }
        if self.removal_due.is_some_and(|due| due <= now) {
            self.removal_due = None;
            // Files that cannot be removed now are tried again tomorrow.
            let _ = self.remove_old();
        }
        self.file.write(line)
    }

    /// Removes the files of earlier days that are too many beside the current one.
    fn remove_old(&self) -> io::Result<()> {
        let mut earlier = Vec::new();
        for entry in self.path.with_file_name("").read_dir()? {
            let path = entry?.path();
            if let Some(date) = self.date_of(&path).filter(|date| *date < self.today) {
                earlier.push((date, path));
            }
        }
        earlier.sort_unstable();
        let too_many = (earlier.len() + 1).saturating_sub(self.keep.max(1));
        earlier
            .iter()
            .take(too_many)
            .try_for_each(|(_, path)| std::fs::remove_file(path))
    }

    /// The day of a file that is one of this log.
    fn date_of(&self, path: &Path) -> Option<Date> {
        let date = path.extension()?.to_str()?;
        let date = date.parse().ok().filter(|_| date.len() == 10)?;
        (path.with_extension("") == self.path && path.is_file()).then_some(date)
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn make_dir(directory: &Path, shared_with: Option<&Path>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut making = DirBuilder::new();
    making.recursive(true).mode(0o750).create(directory)?;
    if let Some(owners) = shared_with {
        give_to_owner_of(File::open(directory)?, File::open(owners)?);
    }
    Ok(())
}

/// Opens the file of a day, which may be there already.
///
/// Root may do so in a directory of another user, who must not lead it elsewhere: links are not
/// followed, and nothing is handed over but what is new.
fn open_for_date(day: Date, path: &Path, shared_with: Option<&Path>) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{day}"));
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(FILE_MODE)
        .custom_flags(no_link.bits().cast_signed());
    match options.clone().create_new(true).open(&name) {
        Ok(made) => {
            made.set_permissions(Permissions::from_mode(FILE_MODE))?;
            if let Some(owners) = shared_with {
                give_to_owner_of(&made, File::open(owners)?);
            }
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = options.open(&name)?;
            let meta = there.metadata()?;
            if !meta.is_file() || meta.nlink() != 1 {
                return Err(io::Error::other("it is no file of its own, but a link"));
            }
            Ok(there)
        }
        Err(error) => Err(error),
    }
}

impl Write for DailyFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_on_date(today(), Instant::now(), line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_days_are_kept_and_nothing_else_is_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            "haul.db",
            "haul.log.2001-01-01",
            "haul.log.2001-01-02",
            "haul.log.2001-01-03",
            "haul.log.2001-01-03.gz",
            "haul.log.old",
            "other.2001-01-01",
        ] {
            std::fs::write(directory.path().join(name), "old\n").expect("written");
        }
        let path = directory.path().join("haul.log");
        let mut file = DailyFile::open(&path, 2).expect("opens");
        file.write_all(b"new\n").expect("written");
        drop(file);
        // Opened again on the same day, it goes on.
        let mut file = DailyFile::open(&path, 2).expect("opens");
        let (day, settled) = (file.today, Instant::now() + REMOVAL_DELAY);
        file.write_on_date(day, settled, b"newer\n")
            .expect("written");
        let now = format!("haul.log.{}", file.today);
        assert_eq!(
            names_of(&path),
            [
                "haul.db",
                "haul.log.2001-01-03",
                "haul.log.2001-01-03.gz",
                &now,
                "haul.log.old",
                "other.2001-01-01"
            ]
        );
        let text = std::fs::read_to_string(directory.path().join(now)).expect("text");
        assert_eq!(text, "new\nnewer\n");
    }

    const FIRST: Date = Date::constant(2026, 3, 1);

    /// A log of the last three days before [`FIRST`], which is to keep three files.
    fn with_three_days() -> (tempfile::TempDir, DailyFile) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("haul.log");
        let mut file = DailyFile::open(&path, 3).expect("opens");
        std::fs::remove_file(directory.path().join(&names_of(&path)[0])).expect("removed");
        for day in ["2026-02-26", "2026-02-27", "2026-02-28"] {
            let day = day.parse().expect("a date");
            let wrote = file.write_on_date(day, Instant::now(), b"old\n");
            wrote.expect("written");
        }
        (directory, file)
    }

    #[test]
    fn the_current_file_is_never_removed_and_neither_are_files_of_later_days() {
        let (directory, mut file) = with_three_days();
        // The clock was ahead for a while.
        for later in ["2030-01-01", "2030-01-02", "2030-01-03"] {
            std::fs::write(
                directory.path().join(format!("haul.log.{later}")),
                "later\n",
            )
            .expect("written");
        }
        let now = Instant::now();
        file.write_on_date(FIRST, now, b"one\n").expect("written");
        let settled = now + REMOVAL_DELAY;
        file.write_on_date(FIRST, settled, b"two\n")
            .expect("written");
        let names = names_of(&file.path);
        assert_eq!(
            names,
            [
                "haul.log.2026-02-27",
                "haul.log.2026-02-28",
                "haul.log.2026-03-01",
                "haul.log.2030-01-01",
                "haul.log.2030-01-02",
                "haul.log.2030-01-03"
            ]
        );
        let text = std::fs::read_to_string(directory.path().join(&names[2])).expect("text");
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_moment_removes_nothing() {
        let (_directory, mut file) = with_three_days();
        let (yesterday, start) = (file.today, Instant::now());
        let second = Duration::from_secs(1);
        for (day, after) in [
            (yesterday, 0),
            (Date::constant(2038, 1, 19), 1),
            (yesterday, 2),
            (Date::constant(2039, 1, 1), 3),
            (yesterday, 4),
            (yesterday, 100),
        ] {
            file.write_on_date(day, start + second * after, b"line\n")
                .expect("written");
        }
        let names = names_of(&file.path);
        assert_eq!(
            names[..3],
            [
                "haul.log.2026-02-26",
                "haul.log.2026-02-27",
                "haul.log.2026-02-28"
            ]
        );
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn a_log_that_was_only_opened_has_removed_nothing() {
        let (directory, file) = with_three_days();
        let mut again = DailyFile::open(&file.path, 1).expect("opens");
        again
            .write_all(b"why it does not start\n")
            .expect("written");
        drop(again);
        assert_eq!(names_of(&directory.path().join("haul.log")).len(), 4);
    }

    #[test]
    fn a_log_goes_on_in_the_old_file_if_the_new_one_cannot_be_opened() {
        let (directory, mut file) = with_three_days();
        let yesterday = file.today;
        let name = directory.path().join(format!("haul.log.{FIRST}"));
        std::fs::create_dir(&name).expect("made");
        file.write_on_date(FIRST, Instant::now(), b"late\n")
            .expect("written");
        let old = directory.path().join(format!("haul.log.{yesterday}"));
        assert_eq!(std::fs::read_to_string(old).expect("text"), "old\nlate\n");
        std::fs::remove_dir(&name).expect("removed");
        file.write_on_date(FIRST, Instant::now(), b"new\n")
            .expect("written");
        assert_eq!(std::fs::read_to_string(name).expect("text"), "new\n");
    }

    #[test]
    fn nobody_but_owner_and_group_can_read_it_and_a_new_day_has_a_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = DailyFile::open(&path, 9).expect("opens");
        file.today = Date::constant(2001, 1, 1);
        let [today] = names_of(&path).try_into().expect("one file");
        let today = directory.path().join(today);
        std::fs::remove_file(&today).expect("removed");
        file.write_all(b"line\n").expect("written");
        assert_eq!(names_of(&path).len(), 1);
        assert_eq!(std::fs::read(&today).expect("text"), b"line\n");
        let mode = today.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE, "{mode:o}");
    }

    #[test]
    fn a_link_in_its_place_leads_nowhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, victim) = (
            directory.path().join("logs/a.log"),
            directory.path().join("victim"),
        );
        std::fs::create_dir(directory.path().join("logs")).expect("made");
        std::fs::write(&victim, "kept").expect("written");
        let name = format!("{}.{}", path.display(), today());
        for link in [std::os::unix::fs::symlink, |from: &Path, to: &str| {
            std::fs::hard_link(from, to)
        }] {
            link(&victim, &name).expect("linked");
            DailyFile::open(&path, 9).expect_err("a link");
            std::fs::remove_file(&name).expect("removed");
        }
        assert_eq!(std::fs::read_to_string(&victim).expect("text"), "kept");
    }

    /// The names in the directory of the log, sorted.
    fn names_of(path: &Path) -> Vec<String> {
        let entries = path.with_file_name("").read_dir().expect("readable");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries
            .map(name)
            .flat_map(std::ffi::OsString::into_string)
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_missing_directory_is_made_and_a_path_without_a_name_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        DailyFile::open(&directory.path().join("a/b/haul.log"), 1).expect("made");
        assert!(DailyFile::open(Path::new("/"), 1).is_err());
    }
}

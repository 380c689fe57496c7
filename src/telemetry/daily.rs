//! The log file: a new one every day, and no more of them than wanted.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rustix::fs::OFlags;

use crate::ownership::hand_over;

/// Who may read the log: it says who did what with which files.
const MODE: u32 = 0o640;

/// Appends to `<path>.<date>`, whoever else does.
#[derive(Debug)]
pub(super) struct DailyFile {
    path: PathBuf,
    keep: usize,
    today: Date,
    file: File,
    /// A directory whose owner also writes there: what is new becomes theirs.
    shared_with: Option<PathBuf>,
}

impl DailyFile {
    pub(super) fn open(path: &Path, keep: usize) -> Result<Self, String> {
        Self::open_shared(path, keep, None)
    }

    /// As [`Self::open`]. What root makes anew goes to the owner of the directory `shared_with`.
    pub(super) fn open_shared(
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
        let opened =
            make_dir(directory, shared_with).and_then(|()| open_that_of(today, &path, shared_with));
        let file = Self {
            file: opened.map_err(|error| error.to_string())?,
            path,
            keep,
            today,
            shared_with: shared_with.map(Path::to_owned),
        };
        // What can not be removed now is tried again tomorrow.
        let _ = file.remove_old();
        Ok(file)
    }

    /// Removes the files of all but the last days.
    fn remove_old(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in self.path.with_file_name("").read_dir()? {
            let path = entry?.path();
            if self.is_one_of_ours(&path) {
                files.push(path);
            }
        }
        files.sort_unstable();
        let too_many = files.len().saturating_sub(self.keep);
        files
            .iter()
            .take(too_many)
            .try_for_each(std::fs::remove_file)
    }

    fn is_one_of_ours(&self, path: &Path) -> bool {
        let is_date = path
            .extension()
            .and_then(|date| date.to_str())
            .is_some_and(|date| date.len() == 10 && date.parse::<Date>().is_ok());
        is_date && path.with_extension("") == self.path && path.is_file()
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
        hand_over(File::open(directory)?, File::open(owners)?);
    }
    Ok(())
}

/// Opens the file of a day, which may be there already.
///
/// Root may do so in a directory of another user, who must not lead it elsewhere: links are not
/// followed, and nothing is handed over but what is new.
fn open_that_of(day: Date, path: &Path, shared_with: Option<&Path>) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{day}"));
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(MODE)
        .custom_flags(no_link.bits().cast_signed());
    match options.clone().create_new(true).open(&name) {
        Ok(made) => {
            made.set_permissions(Permissions::from_mode(MODE))?;
            if let Some(owners) = shared_with {
                hand_over(&made, File::open(owners)?);
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
        let today = today();
        if self.today != today {
            self.file = open_that_of(today, &self.path, self.shared_with.as_deref())?;
            self.today = today;
            let _ = self.remove_old();
        }
        self.file.write(line)
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
        let names = |directory: &Path| {
            let entries = directory.read_dir().expect("readable");
            let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
            let mut names: Vec<_> = entries.map(name).collect();
            names.sort();
            names
        };
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
        file.write_all(b"newer\n").expect("written");
        let now = format!("haul.log.{}", file.today);
        assert_eq!(
            names(directory.path()),
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

    #[test]
    fn nobody_but_owner_and_group_can_read_it_and_a_new_day_has_a_new_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut file = DailyFile::open(&path, 9).expect("opens");
        file.today = Date::constant(2001, 1, 1);
        std::fs::remove_file(names_of(&path).pop().expect("one")).expect("removed");
        file.write_all(b"line\n").expect("written");
        let [today] = names_of(&path).try_into().expect("one file");
        assert_eq!(std::fs::read(&today).expect("text"), b"line\n");
        let mode = today.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE, "{mode:o}");
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

    fn names_of(path: &Path) -> Vec<PathBuf> {
        let entries = path.with_file_name("").read_dir().expect("readable");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }

    #[test]
    fn a_missing_directory_is_made_and_a_path_without_a_name_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        DailyFile::open(&directory.path().join("a/b/haul.log"), 1).expect("made");
        assert!(DailyFile::open(Path::new("/"), 1).is_err());
    }
}

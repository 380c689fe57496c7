//! The log file: a new one every day, and no more of them than wanted.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tracing_appender::rolling::{RollingFileAppender, Rotation};

/// Appends to `<path>.<date>`.
pub(super) struct DailyFile {
    appender: RollingFileAppender,
    path: PathBuf,
    keep: usize,
    today: Date,
}

impl DailyFile {
    pub(super) fn open(path: &Path, keep: usize) -> Result<Self, String> {
        let name = path.file_name().ok_or("it has no file name")?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let appender = RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix(name.to_str().ok_or("its name is not UTF-8")?)
            .build(directory)
            .map_err(|error| {
                error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string)
            })?;
        let file = Self {
            appender,
            path: directory.join(name),
            keep,
            today: today(),
        };
        // What can not be removed now is tried again tomorrow.
        let _ = file.remove_old();
        Ok(file)
    }

    /// Removes the files of all but the last days. The appender could do so itself, but would take
    /// every file whose name begins alike for its own.
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

impl Write for DailyFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.appender.write(line)?;
        if self.today != today() {
            self.today = today();
            let _ = self.remove_old();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.appender.flush()
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
    fn a_missing_directory_is_made_and_a_path_without_a_name_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        DailyFile::open(&directory.path().join("a/b/haul.log"), 1).expect("made");
        assert!(DailyFile::open(Path::new("/"), 1).is_err());
    }
}

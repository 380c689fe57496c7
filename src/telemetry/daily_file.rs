//! The log file: it is rotated every day, and a limited number of earlier days is kept.
//!
//! The current file has the configured name, such as `haul.log`. At the first line of a new day (UTC) it
//! is renamed to `haul.log.<date>` and a new one is created, so that programs that follow the name, such
//! as `tail -F`, continue. A file that another program renamed or removed, such as logrotate, is created
//! again within a second. Several processes may write to one log: the server, and commands on its machine.
//!
//! Files of earlier days are removed only once the current day has lasted for a while by the monotonic
//! clock: a wall clock that is wrong for a moment removes nothing, and neither does a server that is
//! refused at its start. The current file and files of later days are never removed.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
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

use crate::io_error::describe_io_error;
use crate::ownership::give_to_owner_of;

/// The mode of the log, which says who did what with which files.
const FILE_MODE: u32 = 0o640;

/// How long a day must have lasted before files are removed for it.
const REMOVAL_DELAY: Duration = Duration::from_mins(1);

/// How often the file is compared with the one that has its name now.
const NAME_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The most files of one day. There is more than one only if the clock was set.
const MAX_FILES_OF_DAY: u32 = 10;

/// Appends to the file of the current day.
#[derive(Debug)]
pub(crate) struct DailyFile {
    path: PathBuf,
    keep: usize,
    /// The day of the lines in the current file.
    day: Date,
    file: File,
    identity: FileIdentity,
    name_checked: Instant,
    /// When old files are to be removed, unless the day changes before.
    removal_due: Option<Instant>,
    /// A directory whose owner also writes there: new files become theirs.
    shared_with: Option<PathBuf>,
}

/// The device and inode of a file.
type FileIdentity = (u64, u64);

fn identity(metadata: &Metadata) -> FileIdentity {
    (metadata.dev(), metadata.ino())
}

impl DailyFile {
    pub(crate) fn open(path: &Path, keep: usize) -> Result<Self, String> {
        Self::open_shared(path, keep, None)
    }

    /// As [`Self::open`]. What root creates goes to the owner of the directory `shared_with`.
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
        Self::open_on_date(today(), directory.join(name), keep, shared_with)
            .map_err(|error| describe_io_error(&error))
    }

    fn open_on_date(
        today: Date,
        path: PathBuf,
        keep: usize,
        shared_with: Option<&Path>,
    ) -> io::Result<Self> {
        let now = Instant::now();
        make_parent(&path, shared_with)?;
        let (file, metadata) = open_or_create(&path, shared_with)?;
        let mut log = Self {
            day: day_of(&metadata).unwrap_or(today),
            identity: identity(&metadata),
            file,
            path,
            keep,
            name_checked: now,
            removal_due: Some(now + REMOVAL_DELAY),
            shared_with: shared_with.map(Path::to_owned),
        };
        log.change_day(today, now);
        Ok(log)
    }

    /// Writes a line on the day `today`, at the monotonic time `now`.
    fn write_on_date(&mut self, today: Date, now: Instant, line: &[u8]) -> io::Result<usize> {
        if self.day != today {
            self.change_day(today, now);
        } else if now.duration_since(self.name_checked) >= NAME_CHECK_INTERVAL {
            self.name_checked = now;
            if !self.has_name() {
                self.reopen();
            }
        }
        if self.removal_due.is_some_and(|due| due <= now) {
            self.removal_due = None;
            // Files that cannot be removed now are tried again tomorrow.
            let _ = self.remove_old();
        }
        self.file.write(line)
    }

    /// Rotates the file, unless the clock was set back: then the current file is continued.
    fn change_day(&mut self, today: Date, now: Instant) {
        if today > self.day {
            // Another process may have renamed it already.
            if self.has_name() && !self.rename() {
                return;
            }
            // If there is no new file, the log continues in the old one, and the next line tries again.
            if !self.reopen() {
                return;
            }
        }
        if self.day != today {
            self.day = today;
            self.removal_due = Some(now + REMOVAL_DELAY);
        }
    }

    /// Whether the open file still has the name of the log.
    fn has_name(&self) -> bool {
        let named = self.path.symlink_metadata();
        named.is_ok_and(|metadata| identity(&metadata) == self.identity)
    }

    /// Renames the current file to a name with its day; returns whether it is renamed.
    fn rename(&self) -> bool {
        let name = |number: u32| match number {
            0 => self.path_with_suffix(&format!(".{}", self.day)),
            number => self.path_with_suffix(&format!(".{}.{number}", self.day)),
        };
        let mut names = (0..MAX_FILES_OF_DAY).map(name);
        let free = names.find(|name| name.symlink_metadata().is_err());
        free.is_some_and(|free| std::fs::rename(&self.path, free).is_ok())
    }

    fn path_with_suffix(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Opens the file that has the name of the log now, or creates it; returns whether it is open.
    fn reopen(&mut self) -> bool {
        let opened = open_or_create(&self.path, self.shared_with.as_deref());
        let is_open = opened.is_ok();
        if let Ok((file, metadata)) = opened {
            self.file = file;
            self.identity = identity(&metadata);
        }
        is_open
    }

    /// Removes the oldest files of earlier days, so that at most `keep` files remain with the current one.
    fn remove_old(&self) -> io::Result<()> {
        let mut earlier = Vec::new();
        for entry in self.path.with_file_name("").read_dir()? {
            let path = entry?.path();
            if let Some(date) = self.date_of(&path).filter(|date| *date < self.day) {
                earlier.push((date, path));
            }
        }
        earlier.sort_unstable();
        let excess = (earlier.len() + 1).saturating_sub(self.keep.max(1));
        earlier
            .iter()
            .take(excess)
            .try_for_each(|(_, path)| std::fs::remove_file(path))
    }

    /// The day of an earlier file of this log.
    fn date_of(&self, path: &Path) -> Option<Date> {
        let name = path.file_name()?.to_str()?;
        let suffix = name.strip_prefix(self.path.file_name()?.to_str()?)?;
        let suffix = suffix.strip_prefix('.')?;
        let (date, number) = suffix.split_once('.').unwrap_or((suffix, "1"));
        let is_number = number.len() == 1 && number.as_bytes()[0].is_ascii_digit();
        let date = date
            .parse()
            .ok()
            .filter(|_| date.len() == 10 && is_number)?;
        path.symlink_metadata().ok()?.is_file().then_some(date)
    }
}

fn today() -> Date {
    date(Timestamp::now())
}

fn date(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// The day of the last line in a file; `None` if the file is empty.
fn day_of(metadata: &Metadata) -> Option<Date> {
    let changed = Timestamp::from_second(metadata.mtime()).ok();
    changed.filter(|_| metadata.len() > 0).map(date)
}

fn make_parent(path: &Path, shared_with: Option<&Path>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o750).create(directory)?;
    if let Some(owners) = shared_with {
        give_to_owner_of(File::open(directory)?, File::open(owners)?);
    }
    Ok(())
}

/// Opens a log file for appending, or creates it.
///
/// Root may do so in a directory of another user, who must not redirect it: symbolic links are not
/// followed, a file with other hard links is refused, and only a new file changes its owner.
fn open_or_create(path: &Path, shared_with: Option<&Path>) -> io::Result<(File, Metadata)> {
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .append(true)
        .mode(FILE_MODE)
        .custom_flags(no_link.bits().cast_signed());
    let file = match options.clone().create_new(true).open(path) {
        Ok(created) => {
            created.set_permissions(Permissions::from_mode(FILE_MODE))?;
            if let Some(owners) = shared_with {
                give_to_owner_of(&created, File::open(owners)?);
            }
            created
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(io::Error::other("it is a link or not a regular file"));
    }
    Ok((file, metadata))
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
mod tests;

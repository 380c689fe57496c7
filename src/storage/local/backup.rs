//! Backups: homes and shared folders copied to another place, while a server may be changing them.
//!
//! Each file is copied from one open handle, so it is whole, whatever takes its name meanwhile. What
//! is moved from a directory that was not copied yet into one that was would be in neither; so all
//! trees are gone through again until nothing has changed since the pass before. Then the copy holds
//! the state of all trees at the moment between the two passes. What is removed meanwhile may be in
//! the copy or not.
//!
//! A pass knows what the one before has copied by the state that it had: device, inode, change time,
//! size and modification time. Size and modification time alone do not tell two files that have
//! swapped their names.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::{DirBuilder, File, Permissions};
use std::hash::BuildHasher as _;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Timespec, Timestamps, UTIME_OMIT, XattrFlags, fgetxattr, flistxattr, fsetxattr, futimens,
    ioctl_ficlone, readlinkat, symlinkat,
};
use rustix::io::Errno;

use crate::storage::local::fs::attributes::Attributes;
use crate::storage::local::fs::metadata::{EntryKind, Metadata};
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::local::fs::tree;
use crate::storage::local::fs::tree::Descent;

/// Bytes copied at a time; whether to go on is asked after each.
const PIECE: u64 = 4 * 1024 * 1024;

/// The most times that a tree is gone through, and that a file is copied which changes meanwhile.
const MAX_PASSES: usize = 5;

/// Longer than any list of attributes, and than any attribute, that Linux keeps.
const MAX_ATTRIBUTES: usize = 64 * 1024;

/// How far a backup is.
#[derive(Debug)]
pub enum BackupStep {
    /// A file of so many bytes is being copied.
    File(u64),
    /// So many bytes more are copied.
    Bytes(u64),
    /// The file is copied.
    Done,
    /// What is at this path can not be read, and is left out.
    LeftOut(PathBuf, io::Error),
    /// The file at this path changed each time that it was copied: the copy may be no content that
    /// it ever had.
    Changing(PathBuf),
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupCounts {
    /// All that was there when it began, and still is.
    All,
    /// The same, but for what was moved while it ended, and for the files that were
    /// [`Step::Changing`]: something changed in every pass.
    Restless,
    /// Nobody wanted to go on.
    Stopped,
}

/// What hears how far it is, and says whether to go on.
type Watcher<'a> = &'a mut dyn FnMut(BackupStep) -> bool;

/// A backup that is being made. It counts as one once [`Self::finish`] has returned.
#[derive(Debug)]
pub struct Backup {
    from: OpenDir,
    to: OpenDir,
    path: PathBuf,
}

impl Backup {
    /// Begins one of the data directory `data` in the directory `to`, which is made, or is empty.
    /// Only its owner can read it from then on. Nothing is copied yet.
    ///
    /// # Errors
    /// What the system says, or why it can not be there.
    pub fn begin(data: &Path, to: &Path) -> io::Result<Self> {
        let from = OpenDir::open_ambient(data)?;
        // As far as it is there: nothing is made in a wrong place.
        let there = std::path::absolute(to)?;
        let there = there.ancestors().find_map(|path| path.canonicalize().ok());
        if there.is_some_and(|there| {
            data.canonicalize()
                .is_ok_and(|data| there.starts_with(data))
        }) {
            return Err(io::Error::other(
                "it is inside the data directory; name one outside",
            ));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(to)?;
        let opened = OpenDir::open_ambient(to)?;
        tree::for_each(&opened, |entry| match entry.file_name().to_bytes() {
            // Some file systems begin with it.
            b"lost+found" => Ok(()),
            _ => Err(io::Error::other(
                "it is not empty; name a new directory for each backup",
            )),
        })?;
        std::fs::set_permissions(to, Permissions::from_mode(0o700))?;
        Ok(Self {
            from,
            to: opened,
            path: to.to_owned(),
        })
    }

    /// Where it is made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the trees at `paths` of the data directory, such as `homes/alice`, with times and
    /// extended attributes, as far as there are any.
    ///
    /// # Errors
    /// What the system says. What can not be read is no error: see [`Step::LeftOut`].
    pub fn copy(&self, paths: &[PathBuf], watcher: Watcher<'_>) -> io::Result<BackupCounts> {
        let mut copying = Copying {
            watcher,
            path: PathBuf::new(),
            news: false,
            copied: HashMap::new(),
            keys: RandomState::new(),
            left_out: HashSet::new(),
            changing: HashSet::new(),
        };
        for _ in 0..MAX_PASSES {
            copying.news = false;
            copying.changing.clear();
            for path in paths {
                let Some((from, to)) = self.open(path)? else {
                    continue;
                };
                path.clone_into(&mut copying.path);
                match copying.tree(&from, &to) {
                    Err(error) if is_stopped(&error) => return Ok(BackupCounts::Stopped),
                    copied => copied.map_err(|error| copying.named(&error))?,
                }
            }
            if !copying.news {
                return Ok(BackupCounts::All);
            }
        }
        for path in std::mem::take(&mut copying.changing) {
            copying.step(BackupStep::Changing(path))?;
        }
        Ok(BackupCounts::Restless)
    }

    /// Takes what was copied from `path` out again, if anything was.
    ///
    /// # Errors
    /// What the system says.
    pub fn leave_out(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = (path.parent(), path.file_name());
        let mut dir = self.to.open_dir(c".")?;
        for name in parent.into_iter().flat_map(Path::components) {
            match dir.open_dir(name.as_os_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => dir = opened?,
            }
        }
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        let name = CString::new(name)?;
        match tree::delete(&dir, &name).failed {
            Some(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until everything is on the disk, and only then gives the last file, `from`, its name.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self, from: &str, name: &str) -> io::Result<()> {
        self.to.sync_disk()?;
        self.to.rename_new(from, &self.to, name)?;
        self.to.sync()
    }

    /// The directory at `path`, and the one that it is copied to.
    fn open(&self, path: &Path) -> io::Result<Option<(OpenDir, OpenDir)>> {
        let (mut from, mut to) = (self.from.open_dir(c".")?, self.to.open_dir(c".")?);
        for name in path {
            from = match from.open_dir(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            to = make_dir(&to, name)?;
        }
        Ok(Some((from, to)))
    }
}

fn make_dir(parent: &OpenDir, name: impl rustix::path::Arg + Copy) -> io::Result<OpenDir> {
    match parent.make_dir(name) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => parent.open_dir(name),
    }
}

struct Copying<'a> {
    watcher: Watcher<'a>,
    /// Of what is copied now, in the data directory.
    path: PathBuf,
    /// Something has changed since the pass before.
    news: bool,
    /// The state in which each file was copied and each directory was read, by a hash of its path.
    copied: HashMap<u64, [u8; 16]>,
    keys: RandomState,
    /// What could not be read, and was told.
    left_out: HashSet<PathBuf>,
    /// Files that changed each time that they were copied.
    changing: HashSet<PathBuf>,
}

impl Copying<'_> {
    /// Copies a tree, however deep it is.
    fn tree(&mut self, from: &OpenDir, to: &OpenDir) -> io::Result<()> {
        let (mut from, mut to) = (Descent::new(from)?, Descent::new(to)?);
        let mut pending = vec![self.level(from.dir(), to.dir())?];
        while let Some(names) = pending.last_mut() {
            if let Some(name) = names.pop() {
                self.path.push(OsStr::from_bytes(name.to_bytes()));
                match from.enter(&name) {
                    Ok(true) => {
                        make_dir(to.dir(), &*name)?;
                        if !to.enter(&name)? {
                            return Err(Errno::NOTDIR.into());
                        }
                        pending.push(self.level(from.dir(), to.dir())?);
                    }
                    Ok(false) => {
                        self.gone();
                        self.path.pop();
                    }
                    Err(error) => {
                        self.leave_out(error)?;
                        self.path.pop();
                    }
                }
                continue;
            }
            // After what is in it, which changes it.
            set_time(to.dir(), &from.dir().own_meta()?)?;
            pending.pop();
            match from.leave() {
                // It has been moved meanwhile. The next pass finds it where it is then.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::STALE) => {
                    self.news = true;
                    return Ok(());
                }
                left => left?,
            };
            if to.leave()? {
                self.path.pop();
            }
        }
        Ok(())
    }

    /// Copies what is in a directory, but for the directories, which it returns.
    fn level(&mut self, from: &OpenDir, to: &OpenDir) -> io::Result<Vec<CString>> {
        let mut dirs = Vec::new();
        // From before it is read: what changes in it from then on is news to the next pass.
        let meta = from.own_meta()?;
        let before = self.note(&meta);
        self.news |= before != Some(meta.state());
        tree::for_each(from, |entry| {
            let name = entry.file_name();
            self.path.push(OsStr::from_bytes(name.to_bytes()));
            if self.entry(from, to, name)? {
                dirs.push(name.to_owned());
            }
            // Where it fails the whole path is told.
            self.path.pop();
            Ok(())
        })?;
        Ok(dirs)
    }

    /// Notes in which state the current path is copied. Returns what was noted before.
    fn note(&mut self, meta: &Metadata) -> Option<[u8; 16]> {
        let key = self.keys.hash_one(&self.path);
        self.copied.insert(key, meta.state())
    }

    fn is_copied(&self, meta: &Metadata) -> bool {
        let key = self.keys.hash_one(&self.path);
        self.copied.get(&key) == Some(&meta.state())
    }

    /// Copies an entry, unless it is a directory; whether it is.
    fn entry(&mut self, from: &OpenDir, to: &OpenDir, name: &CStr) -> io::Result<bool> {
        let Some(meta) = from.meta(name)? else {
            self.gone();
            return Ok(false);
        };
        let there = to.meta(name)?;
        if there.as_ref().is_some_and(|there| there.what != meta.what)
            && let Some(error) = tree::delete(to, name).failed
        {
            return Err(error);
        }
        match meta.what {
            EntryKind::Dir => return Ok(true),
            _ if there.is_some() && self.is_copied(&meta) => {}
            EntryKind::File => self.file(from, to, name)?,
            EntryKind::Link => self.link(from, to, name, &meta)?,
            EntryKind::Special => {}
        }
        Ok(false)
    }

    /// Notes that an entry is gone since its directory was read. It may be where this pass has been
    /// already.
    fn gone(&mut self) {
        self.news = true;
    }

    fn link(
        &mut self,
        from: &OpenDir,
        to: &OpenDir,
        name: &CStr,
        meta: &Metadata,
    ) -> io::Result<()> {
        match readlinkat(from, name, Vec::new()) {
            // It is another entry by now.
            Err(Errno::NOENT | Errno::INVAL) => self.gone(),
            Err(error) => return Err(error.into()),
            Ok(leads_to) => {
                remove(to, name)?;
                symlinkat(leads_to, to, name)?;
                self.note(meta);
                self.news = true;
            }
        }
        Ok(())
    }

    /// Copies the file `name`, again if it was written to meanwhile.
    fn file(&mut self, from: &OpenDir, to: &OpenDir, name: &CStr) -> io::Result<()> {
        for _ in 0..MAX_PASSES {
            let (source, meta) = match from.open_file(name) {
                Ok((source, meta)) if meta.what == EntryKind::File => (source, meta),
                Ok(_) => {
                    self.gone();
                    return Ok(());
                }
                Err(error) => return self.leave_out(error),
            };
            remove(to, name)?;
            let target = to.create_file(name)?;
            self.step(BackupStep::File(meta.size))?;
            if let Err(error) = self.bytes(&source, &target, meta.size) {
                if is_unreadable(&error) {
                    to.remove_file(name)?;
                }
                return self.leave_out(error);
            }
            copy_attributes(&source, &target)?;
            if Attributes::read(&source, &meta).is_none() {
                // Derived from what the copy does not have. Without attributes, the copy gets a
                // version of its own.
                let _ = Attributes::of(&source, &meta).keep(&target, &meta);
            }
            set_time(&target, &meta)?;
            self.news = true;
            self.note(&meta);
            if Metadata::of(&source)?.state() == meta.state() {
                self.changing.remove(&self.path);
                return self.step(BackupStep::Done);
            }
        }
        self.changing.insert(self.path.clone());
        self.step(BackupStep::Done)
    }

    /// Shares the blocks where the file system can, else has the kernel copy.
    fn bytes(&mut self, mut source: &File, mut target: &File, size: u64) -> io::Result<()> {
        if ioctl_ficlone(target, source).is_ok() {
            return self.step(BackupStep::Bytes(size));
        }
        loop {
            match io::copy(&mut source.by_ref().take(PIECE), &mut target) {
                Ok(0) => return Ok(()),
                Ok(copied) => self.step(BackupStep::Bytes(copied))?,
                Err(error) => return Err(of_copying(error, source)),
            }
        }
    }

    fn step(&mut self, step: BackupStep) -> io::Result<()> {
        if (self.watcher)(step) {
            Ok(())
        } else {
            Err(Errno::CANCELED.into())
        }
    }

    /// Goes on without what can not be read. What can not be written ends the backup.
    fn leave_out(&mut self, error: io::Error) -> io::Result<()> {
        if error.kind() == io::ErrorKind::NotFound {
            self.gone();
            return Ok(());
        }
        if !is_unreadable(&error) {
            return Err(error);
        }
        self.tell_left_out(error)
    }

    fn tell_left_out(&mut self, error: io::Error) -> io::Result<()> {
        // Once is enough.
        if self.left_out.insert(self.path.clone()) {
            return self.step(BackupStep::LeftOut(self.path.clone(), error));
        }
        Ok(())
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

fn remove(dir: &OpenDir, name: &CStr) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A disk that fails in one place, and what somebody else put there.
fn is_unreadable(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NOTDIR)
    )
}

/// Blocks of 128 KiB that are read after a failure, to find out whether the source is at fault.
const PROBED_BLOCKS: usize = 1024;

/// Tells what can not be written from what can not be read: the kernel says the same of both.
fn of_copying(error: io::Error, mut source: &File) -> io::Error {
    // It is where the copy has come to.
    let next = source.stream_position();
    match next.and_then(|next| read_through(source, next)) {
        Ok(()) if is_unreadable(&error) => io::Error::other(format!("can not write it: {error}")),
        _ => error,
    }
}

/// Reads what one step of a copy may have tried to read.
fn read_through(source: &File, mut offset: u64) -> io::Result<()> {
    let mut block = vec![0; 128 * 1024];
    for _ in 0..PROBED_BLOCKS {
        match source.read_at(&mut block, offset)? {
            0 => break,
            read => offset += read as u64,
        }
    }
    Ok(())
}

fn is_stopped(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::CANCELED)
}

/// The attributes that programs give to files: digests among them. Where the other file system
/// keeps none, there are none.
fn copy_attributes(source: &File, target: &File) -> io::Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTES];
    let length = match flistxattr(source, &mut names) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut value = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if !name.to_bytes().starts_with(b"user.") {
            continue;
        }
        value.resize(MAX_ATTRIBUTES, 0);
        let length = match fgetxattr(source, name, &mut *value) {
            // A server that found it stale has removed it.
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        match fsetxattr(target, name, &value[..length], XattrFlags::empty()) {
            Err(Errno::NOTSUP) => return Ok(()),
            set => set?,
        }
    }
    Ok(())
}

/// Gives what is open the time of the last change that `meta` has.
fn set_time(open: impl std::os::fd::AsFd, meta: &Metadata) -> io::Result<()> {
    let (seconds, nanoseconds) = meta.modified;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    };
    Ok(futimens(open, &times)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(place.path().join("data/homes/alice")).expect("made");
            Self(place)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.at("data/homes/alice").join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn begin(&self) -> io::Result<Backup> {
            Backup::begin(&self.at("data"), &self.at("copy"))
        }

        /// The copy of a file of alice's, if it is there.
        fn copied(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.at("copy/homes/alice").join(path)).ok()
        }
    }

    fn home() -> [PathBuf; 1] {
        ["homes/alice".into()]
    }

    #[test]
    fn a_tree_is_copied_with_times_attributes_and_links_for_its_owner_only() {
        let place = Place::new();
        place.write("a/b/file", "content");
        place.write("empty", "");
        let file = place.at("data/homes/alice/a/b/file");
        rustix::fs::setxattr(&file, "user.haul.test", b"kept", XattrFlags::empty()).expect("set");
        std::os::unix::fs::symlink("/etc/passwd", place.at("data/homes/alice/link")).expect("made");
        for path in ["a/b/file", "a/b", "a", "."] {
            let open = File::open(place.at("data/homes/alice").join(path)).expect("there");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_891);
            open.set_modified(time).expect("set");
        }
        let backup = place.begin().expect("begins");
        let mut bytes = 0;
        let done = backup.copy(&home(), &mut |step| {
            if let BackupStep::Bytes(copied) = step {
                bytes += copied;
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::All);
        assert_eq!(bytes, 7);
        assert_eq!(place.copied("a/b/file").as_deref(), Some("content"));
        assert_eq!(place.copied("empty").as_deref(), Some(""));
        let link = fs::read_link(place.at("copy/homes/alice/link")).expect("a link");
        assert_eq!(link, Path::new("/etc/passwd"));
        let copy = place.at("copy/homes/alice/a/b/file");
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(&copy, "user.haul.test", &mut value).expect("kept");
        assert_eq!(&value[..length], b"kept");
        for (path, mode) in [
            ("a/b/file", 0o600),
            ("a/b", 0o700),
            ("a", 0o700),
            (".", 0o700),
        ] {
            let copy = fs::metadata(place.at("copy/homes/alice").join(path)).expect("there");
            assert_eq!(
                (copy.mtime(), copy.mtime_nsec()),
                (1, 234_567_891),
                "{path}"
            );
            assert_eq!(copy.mode() & 0o777, mode, "{path}");
        }
        assert_eq!(
            fs::metadata(place.at("copy")).expect("there").mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_tree_of_any_depth_is_copied() {
        const LEVELS: usize = 600;
        let place = Place::new();
        let mut dir = OpenDir::open_ambient(&place.at("data/homes/alice")).expect("there");
        for _ in 0..LEVELS {
            dir.make_dir("d").expect("made");
            dir = dir.open_dir("d").expect("there");
        }
        dir.create_file("file").expect("made");
        let backup = place.begin().expect("begins");
        let done = backup.copy(&home(), &mut |_| true);
        assert_eq!(done.expect("copied"), BackupCounts::All);
        let copied = format!("{}file", "d/".repeat(LEVELS));
        assert_eq!(place.copied(&copied).as_deref(), Some(""));
    }

    #[test]
    fn what_is_moved_and_made_meanwhile_is_in_the_copy_and_each_file_is_whole() {
        let place = Place::new();
        place.write("a/moved", "the same");
        place.write("b/moved", "the same");
        place.write("file", "old");
        let backup = place.begin().expect("begins");
        let mut steps = 0;
        let done = backup.copy(&home(), &mut |step| {
            if matches!(step, BackupStep::Done) {
                steps += 1;
            }
            // Whichever of the two directories was first, one file is moved into it behind it.
            if steps == 1 {
                for (from, to) in [("a", "b"), ("b", "a")] {
                    let [from, to] = [from, to].map(|dir| place.at("data/homes/alice").join(dir));
                    let _ = fs::rename(from.join("moved"), to.join(format!("from-{steps}")));
                }
                place.write("new", "made meanwhile");
                let replacement = place.at("data/homes/replacement");
                fs::write(&replacement, "new and longer").expect("written");
                fs::rename(replacement, place.at("data/homes/alice/file")).expect("moved");
                steps += 1;
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::All);
        for (path, text) in [
            ("a/from-1", "the same"),
            ("b/from-1", "the same"),
            ("new", "made meanwhile"),
            ("file", "new and longer"),
        ] {
            assert_eq!(place.copied(path).as_deref(), Some(text), "{path}");
        }
    }

    #[test]
    fn what_is_moved_to_another_space_meanwhile_is_in_the_copy() {
        let place = Place::new();
        place.write("file", "first");
        let shared = place.at("data/folders/team/report");
        fs::create_dir_all(shared.parent().expect("a directory")).expect("made");
        fs::write(&shared, "moved").expect("written");
        let backup = place.begin().expect("begins");
        let spaces = ["homes/alice".into(), "folders/team".into()];
        let done = backup.copy(&spaces, &mut |step| {
            if matches!(step, BackupStep::Done) {
                let _ = fs::rename(&shared, place.at("data/homes/alice/report"));
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::All);
        assert_eq!(place.copied("report").as_deref(), Some("moved"));
    }

    #[test]
    fn what_is_never_at_rest_is_told_from_what_is() {
        let place = Place::new();
        place.write("moved-0", "x");
        fs::create_dir_all(place.at("data/folders/team")).expect("made");
        let spaces = ["homes/alice".into(), "folders/team".into()];
        let backup = place.begin().expect("begins");
        let mut moves = 0;
        let done = backup.copy(&spaces, &mut |step| {
            if matches!(step, BackupStep::Done) {
                let at = |n: usize| {
                    let space: &Path = &spaces[n % 2];
                    place.at("data").join(space).join(format!("moved-{n}"))
                };
                fs::rename(at(moves), at(moves + 1)).expect("moved");
                moves += 1;
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::Restless);
        assert_eq!(moves, 2 * MAX_PASSES);
    }

    #[test]
    fn two_files_of_one_size_and_time_that_swap_their_names_are_both_in_the_copy() {
        let place = Place::new();
        let paths = ["a/file", "b/file"].map(|path| place.at("data/homes/alice").join(path));
        for (path, text) in [("a/file", "one"), ("b/file", "two")] {
            place.write(path, text);
            let open = File::open(place.at("data/homes/alice").join(path)).expect("there");
            open.set_modified(std::time::UNIX_EPOCH).expect("set");
        }
        for (from, to) in [("one", "link-1"), ("two", "link-2")] {
            let link = place.at("data/homes/alice").join(to);
            std::os::unix::fs::symlink(from, link).expect("made");
        }
        let links = ["link-1", "link-2"].map(|path| place.at("data/homes/alice").join(path));
        let backup = place.begin().expect("begins");
        let mut swapped = false;
        let done = backup.copy(&home(), &mut |step| {
            if matches!(step, BackupStep::Done) && !swapped {
                swapped = true;
                for [one, other] in [&paths, &links] {
                    let aside = place.at("data/aside");
                    fs::rename(one, &aside).expect("moved");
                    fs::rename(other, one).expect("moved");
                    fs::rename(&aside, other).expect("moved");
                }
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::All);
        assert_eq!(place.copied("a/file").as_deref(), Some("two"));
        assert_eq!(place.copied("b/file").as_deref(), Some("one"));
        for (link, leads_to) in [("link-1", "two"), ("link-2", "one")] {
            let link = place.at("copy/homes/alice").join(link);
            assert_eq!(fs::read_link(link).expect("a link"), Path::new(leads_to));
        }
    }

    #[test]
    fn a_file_that_changes_whenever_it_is_copied_is_named() {
        let place = Place::new();
        place.write("dir/log", "");
        place.write("file", "at rest");
        let log = place.at("data/homes/alice/dir/log");
        let backup = place.begin().expect("begins");
        let mut changing = Vec::new();
        let done = backup.copy(&home(), &mut |step| {
            match step {
                BackupStep::File(_) => {
                    let mut text = fs::read_to_string(&log).expect("there");
                    text.push_str("line\n");
                    fs::write(&log, text).expect("written");
                }
                BackupStep::Changing(path) => changing.push(path),
                _ => {}
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::Restless);
        assert_eq!(changing, [Path::new("homes/alice/dir/log")]);
        assert_eq!(place.copied("file").as_deref(), Some("at rest"));
    }

    #[test]
    fn what_is_gone_meanwhile_is_no_error_and_a_home_can_be_left_out_again() {
        let place = Place::new();
        for number in 0..20 {
            place.write(&format!("dir-{number}/file"), "x");
        }
        let backup = place.begin().expect("begins");
        let mut gone = false;
        let done = backup.copy(&home(), &mut |_| {
            if !gone {
                gone = true;
                fs::remove_dir_all(place.at("data/homes/alice")).expect("removed");
            }
            true
        });
        assert_eq!(done.expect("copied"), BackupCounts::All);
        backup.leave_out(&home()[0]).expect("removed");
        backup
            .leave_out(Path::new("homes/nobody"))
            .expect("nothing to do");
        assert!(!place.at("copy/homes/alice").exists());
        let nothing = backup.copy(&home(), &mut |_| true);
        assert_eq!(nothing.expect("nothing to do"), BackupCounts::All);
    }

    #[test]
    fn it_is_made_in_a_new_place_outside_the_data_and_stops_when_told() {
        let place = Place::new();
        place.write("file", "x");
        fs::create_dir(place.at("copy")).expect("made");
        fs::create_dir(place.at("copy/lost+found")).expect("made");
        let backup = place.begin().expect("as good as empty");
        let stopped = backup.copy(&home(), &mut |_| false);
        assert_eq!(stopped.expect("stopped"), BackupCounts::Stopped);
        let error = place.begin().expect_err("a second time");
        assert!(error.to_string().contains("not empty"), "{error}");
        let inside = Backup::begin(&place.at("data"), &place.at("data/homes/alice/copy"));
        let error = inside.expect_err("inside").to_string();
        assert!(error.contains("inside the data directory"), "{error}");
        assert!(!place.at("data/homes/alice/copy").exists());
    }
}

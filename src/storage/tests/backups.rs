//! Backups of trees that a server may be changing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::storage::local::backup_pass::MAX_PASSES;
use crate::storage::local::fs::sandbox::OpenDir;
use crate::storage::{Backup, BackupOutcome, BackupStep};

struct BackupDirs(tempfile::TempDir);

impl BackupDirs {
    fn new() -> Self {
        let dirs = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dirs.path().join("data/homes/alice")).expect("made");
        Self(dirs)
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

    /// The copy of one of alice's files.
    fn copied(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at("copy/homes/alice").join(path)).ok()
    }
}

fn home() -> [PathBuf; 1] {
    ["homes/alice".into()]
}

#[test]
fn a_tree_is_copied_with_times_attributes_and_links_for_its_owner_only() {
    let dirs = BackupDirs::new();
    dirs.write("a/b/file", "content");
    dirs.write("empty", "");
    let file = dirs.at("data/homes/alice/a/b/file");
    rustix::fs::setxattr(&file, "user.haul.test", b"kept", XattrFlags::empty()).expect("set");
    std::os::unix::fs::symlink("/etc/passwd", dirs.at("data/homes/alice/link")).expect("made");
    for path in ["a/b/file", "a/b", "a", "."] {
        let open = File::open(dirs.at("data/homes/alice").join(path)).expect("there");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_891);
        open.set_modified(time).expect("set");
    }
    let backup = dirs.begin().expect("begins");
    let mut bytes = 0;
    let done = backup.copy(&home(), &mut |step| {
        if let BackupStep::Bytes(copied) = step {
            bytes += copied;
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    assert_eq!(bytes, 7);
    assert_eq!(dirs.copied("a/b/file").as_deref(), Some("content"));
    assert_eq!(dirs.copied("empty").as_deref(), Some(""));
    let link = fs::read_link(dirs.at("copy/homes/alice/link")).expect("a link");
    assert_eq!(link, Path::new("/etc/passwd"));
    let copy = dirs.at("copy/homes/alice/a/b/file");
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&copy, "user.haul.test", &mut value).expect("kept");
    assert_eq!(&value[..length], b"kept");
    for (path, mode) in [
        ("a/b/file", 0o600),
        ("a/b", 0o700),
        ("a", 0o700),
        (".", 0o700),
    ] {
        let copy = fs::metadata(dirs.at("copy/homes/alice").join(path)).expect("there");
        assert_eq!(
            (copy.mtime(), copy.mtime_nsec()),
            (1, 234_567_891),
            "{path}"
        );
        assert_eq!(copy.mode() & 0o777, mode, "{path}");
    }
    assert_eq!(
        fs::metadata(dirs.at("copy")).expect("there").mode() & 0o777,
        0o700
    );
}

#[test]
fn a_tree_of_any_depth_is_copied() {
    const LEVELS: usize = 600;
    let dirs = BackupDirs::new();
    let mut dir = OpenDir::open_ambient(&dirs.at("data/homes/alice")).expect("there");
    for _ in 0..LEVELS {
        dir.make_dir("d").expect("made");
        dir = dir.open_dir("d").expect("there");
    }
    dir.create_file("file").expect("made");
    let backup = dirs.begin().expect("begins");
    let done = backup.copy(&home(), &mut |_| true);
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    let copied = format!("{}file", "d/".repeat(LEVELS));
    assert_eq!(dirs.copied(&copied).as_deref(), Some(""));
}

#[test]
fn files_moved_and_made_during_a_backup_are_in_the_copy_and_complete() {
    let dirs = BackupDirs::new();
    dirs.write("a/moved", "the same");
    dirs.write("b/moved", "the same");
    dirs.write("file", "old");
    let backup = dirs.begin().expect("begins");
    let mut steps = 0;
    let done = backup.copy(&home(), &mut |step| {
        if matches!(step, BackupStep::Done) {
            steps += 1;
        }
        // Whichever of the two directories was first, one file is moved into it behind it.
        if steps == 1 {
            for (from, to) in [("a", "b"), ("b", "a")] {
                let [from, to] = [from, to].map(|dir| dirs.at("data/homes/alice").join(dir));
                let _ = fs::rename(from.join("moved"), to.join(format!("from-{steps}")));
            }
            dirs.write("new", "made meanwhile");
            let replacement = dirs.at("data/homes/replacement");
            fs::write(&replacement, "new and longer").expect("written");
            fs::rename(replacement, dirs.at("data/homes/alice/file")).expect("moved");
            steps += 1;
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    for (path, text) in [
        ("a/from-1", "the same"),
        ("b/from-1", "the same"),
        ("new", "made meanwhile"),
        ("file", "new and longer"),
    ] {
        assert_eq!(dirs.copied(path).as_deref(), Some(text), "{path}");
    }
}

#[test]
fn a_file_moved_to_another_space_during_a_backup_is_in_the_copy() {
    let dirs = BackupDirs::new();
    dirs.write("file", "first");
    let shared = dirs.at("data/folders/team/report");
    fs::create_dir_all(shared.parent().expect("a directory")).expect("made");
    fs::write(&shared, "moved").expect("written");
    let backup = dirs.begin().expect("begins");
    let spaces = ["homes/alice".into(), "folders/team".into()];
    let done = backup.copy(&spaces, &mut |step| {
        if matches!(step, BackupStep::Done) {
            let _ = fs::rename(&shared, dirs.at("data/homes/alice/report"));
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    assert_eq!(dirs.copied("report").as_deref(), Some("moved"));
}

#[test]
fn a_tree_that_never_stops_changing_is_reported_as_unstable() {
    let dirs = BackupDirs::new();
    dirs.write("moved-0", "x");
    fs::create_dir_all(dirs.at("data/folders/team")).expect("made");
    let spaces = ["homes/alice".into(), "folders/team".into()];
    let backup = dirs.begin().expect("begins");
    let mut moves = 0;
    let done = backup.copy(&spaces, &mut |step| {
        if matches!(step, BackupStep::Done) {
            let at = |n: usize| {
                let space: &Path = &spaces[n % 2];
                dirs.at("data").join(space).join(format!("moved-{n}"))
            };
            fs::rename(at(moves), at(moves + 1)).expect("moved");
            moves += 1;
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Unstable);
    assert_eq!(moves, 2 * MAX_PASSES);
}

#[test]
fn two_files_of_one_size_and_time_that_swap_their_names_are_both_in_the_copy() {
    let dirs = BackupDirs::new();
    let paths = ["a/file", "b/file"].map(|path| dirs.at("data/homes/alice").join(path));
    for (path, text) in [("a/file", "one"), ("b/file", "two")] {
        dirs.write(path, text);
        let open = File::open(dirs.at("data/homes/alice").join(path)).expect("there");
        open.set_modified(std::time::UNIX_EPOCH).expect("set");
    }
    for (from, to) in [("one", "link-1"), ("two", "link-2")] {
        let link = dirs.at("data/homes/alice").join(to);
        std::os::unix::fs::symlink(from, link).expect("made");
    }
    let links = ["link-1", "link-2"].map(|path| dirs.at("data/homes/alice").join(path));
    let backup = dirs.begin().expect("begins");
    let mut swapped = false;
    let done = backup.copy(&home(), &mut |step| {
        if matches!(step, BackupStep::Done) && !swapped {
            swapped = true;
            for [one, other] in [&paths, &links] {
                let aside = dirs.at("data/aside");
                fs::rename(one, &aside).expect("moved");
                fs::rename(other, one).expect("moved");
                fs::rename(&aside, other).expect("moved");
            }
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    assert_eq!(dirs.copied("a/file").as_deref(), Some("two"));
    assert_eq!(dirs.copied("b/file").as_deref(), Some("one"));
    for (link, leads_to) in [("link-1", "two"), ("link-2", "one")] {
        let link = dirs.at("copy/homes/alice").join(link);
        assert_eq!(fs::read_link(link).expect("a link"), Path::new(leads_to));
    }
}

#[test]
fn a_file_that_changes_in_every_pass_is_reported() {
    let dirs = BackupDirs::new();
    dirs.write("dir/log", "");
    dirs.write("file", "at rest");
    let log = dirs.at("data/homes/alice/dir/log");
    let backup = dirs.begin().expect("begins");
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
    assert_eq!(done.expect("copied"), BackupOutcome::Unstable);
    assert_eq!(changing, [Path::new("homes/alice/dir/log")]);
    assert_eq!(dirs.copied("file").as_deref(), Some("at rest"));
}

#[test]
fn files_removed_during_a_backup_are_no_error_and_a_home_can_be_removed_again() {
    let dirs = BackupDirs::new();
    for number in 0..20 {
        dirs.write(&format!("dir-{number}/file"), "x");
    }
    let backup = dirs.begin().expect("begins");
    let mut gone = false;
    let done = backup.copy(&home(), &mut |_| {
        if !gone {
            gone = true;
            fs::remove_dir_all(dirs.at("data/homes/alice")).expect("removed");
        }
        true
    });
    assert_eq!(done.expect("copied"), BackupOutcome::Complete);
    backup.remove(&home()[0]).expect("removed");
    backup
        .remove(Path::new("homes/nobody"))
        .expect("nothing to do");
    assert!(!dirs.at("copy/homes/alice").exists());
    let nothing = backup.copy(&home(), &mut |_| true);
    assert_eq!(nothing.expect("nothing to do"), BackupOutcome::Complete);
}

#[test]
fn a_backup_needs_an_empty_directory_outside_the_data_and_stops_on_request() {
    let dirs = BackupDirs::new();
    dirs.write("file", "x");
    fs::create_dir(dirs.at("copy")).expect("made");
    fs::create_dir(dirs.at("copy/lost+found")).expect("made");
    let backup = dirs.begin().expect("as good as empty");
    let stopped = backup.copy(&home(), &mut |_| false);
    assert_eq!(stopped.expect("stopped"), BackupOutcome::Stopped);
    let error = dirs.begin().expect_err("a second time");
    assert!(error.to_string().contains("not empty"), "{error}");
    let inside = Backup::begin(&dirs.at("data"), &dirs.at("data/homes/alice/copy"));
    let error = inside.expect_err("inside").to_string();
    assert!(error.contains("inside the data directory"), "{error}");
    assert!(!dirs.at("data/homes/alice/copy").exists());
}

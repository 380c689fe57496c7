//! The client's own files: logins, known servers and the history of the shell.
//!
//! Whoever changes one of them calls [`update`], which holds a lock from reading the old text to
//! renaming the new file over it: no change of another process is lost, and after a crash or a power
//! cut either the old text is there or the new one. Readers need no lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// For another process to finish its change, which takes milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts to lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Only the user may read these files, from the moment that they exist.
const MODE: u32 = 0o600;

/// The text of a file, or `None` if there is no file.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match read_regular(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                Err(damaged(path, sound))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

/// The bytes of a regular file. Opening does not wait for the writer of a FIFO.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The value in a TOML file, or the default one if there is no file.
pub(super) fn read_toml<T: Default + DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    parse(path, read(path)?.as_deref())
}

/// Replaces the text of a file by what `change` makes of it. The file is created if it is missing.
/// This waits for other processes and for the disk.
pub(super) fn update(
    path: &Path,
    change: impl FnOnce(Option<&str>) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let failed = || format!("could not write {}", path.display());
    // The user may keep the file elsewhere.
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(_) => path.to_owned(),
    };
    let (directory, name) = match (real.parent(), real.file_name()) {
        (Some(directory), Some(name)) => (directory, name.display()),
        _ => bail!("{} is no path of a file", path.display()),
    };
    fs::create_dir_all(directory).with_context(failed)?;
    let lock = directory.join(format!(".{name}.lock"));
    let new = directory.join(format!(".{name}.new"));
    let _locked = lock_file(&lock, LOCK_TIMEOUT).with_context(failed)?;
    let old = read(&real)?;
    let text = change(old.as_deref())?;
    if old.as_deref() != Some(&text) {
        replace(&real, &new, &text).with_context(failed)?;
    }
    Ok(())
}

/// [`update`] of the value in a TOML file, with the result of `change`. If that is an error, the file
/// stays as it is.
pub(super) fn update_toml<T: Default + Serialize + DeserializeOwned, R>(
    path: &Path,
    change: impl FnOnce(&mut T) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let mut result = None;
    update(path, |old| {
        let mut value = parse(path, old)?;
        result = Some(change(&mut value)?);
        Ok(toml::to_string(&value)?)
    })?;
    result.context("the file was not changed")
}

fn parse<T: Default + DeserializeOwned>(path: &Path, text: Option<&str>) -> anyhow::Result<T> {
    let Some(text) = text else {
        return Ok(T::default());
    };
    toml::from_str(text).map_err(|error| {
        let sound = error.span().map_or(0, |span| span.start);
        damaged(path, &text.as_bytes()[..sound.min(text.len())])
    })
}

/// Says where a file is damaged, and quotes nothing of it: it may hold a password.
fn damaged(path: &Path, sound: &[u8]) -> anyhow::Error {
    let line = sound.split(|byte| *byte == b'\n').count();
    anyhow::anyhow!(
        "{} is damaged in line {line}; correct that line, or remove the file",
        path.display()
    )
}

/// A lock that lasts until the returned file is dropped. The file stays: whoever removed it could
/// remove it from under another process.
fn lock_file(path: &Path, patience: Duration) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .open(path)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            // Some file systems have no locks. There two processes are on their own.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => bail!(
                "another process holds the lock {} for more than {} s; end it and try again",
                path.display(),
                patience.as_secs()
            ),
            Err(TryLockError::WouldBlock) => sleep(LOCK_RETRY),
        }
    }
}

/// Writes `text` to `new` and renames that to `path`, each safe on the disk before the next step.
fn replace(path: &Path, new: &PathBuf, text: &str) -> io::Result<()> {
    match fs::remove_file(new) {
        // The leftover of a process that was killed here.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(new)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(new, path));
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("servers.toml");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("made");
        let error = read(&path).expect_err("refused");
        assert!(
            format!("{error:#}").ends_with("it is not a regular file"),
            "{error:#}"
        );
    }

    #[test]
    fn concurrent_updates_lose_nothing() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("haul/list");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..10 {
                        let line = format!("{thread} {round}\n");
                        update(path, |old| Ok(old.unwrap_or_default().to_owned() + &line))
                            .expect("written");
                    }
                });
            }
        });
        let text = read(&path).expect("sound").expect("there");
        assert_eq!(text.lines().count(), 40, "{text}");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_failed_update_keeps_the_old_text_and_leaves_no_other_file() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("list");
        update(&path, |_| Ok("old".into())).expect("written");
        // The leftover of a client that was killed in the middle.
        fs::write(place.path().join(".list.new"), "ha").expect("written");
        update(&path, |_| bail!("no")).expect_err("refused");
        assert_eq!(read(&path).expect("sound").as_deref(), Some("old"));
        update(&path, |_| Ok("new".into())).expect("written");
        assert_eq!(read(&path).expect("sound").as_deref(), Some("new"));
        assert!(!place.path().join(".list.new").exists());
    }

    #[test]
    fn an_update_waits_for_the_lock_of_another_process_only_so_long() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join(".list.lock");
        let held = lock_file(&path, LOCK_TIMEOUT).expect("free");
        let error = lock_file(&path, Duration::ZERO).expect_err("held");
        assert!(error.to_string().contains(".list.lock"), "{error}");
        drop(held);
        lock_file(&path, Duration::ZERO).expect("free");
    }

    #[test]
    fn a_link_to_a_file_elsewhere_stays_a_link() {
        let place = tempfile::tempdir().expect("a directory");
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        fs::write(&real, "old").expect("written");
        symlink(&real, &link).expect("linked");
        update(&link, |old| {
            Ok(format!("{} and new", old.unwrap_or_default()))
        })
        .expect("written");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("there"), "old and new");
    }

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_neither_quoted_nor_replaced() {
        type TomlTable = std::collections::BTreeMap<String, u32>;
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("table.toml");
        for text in [
            &b"a = 1\nb = hunter2\n"[..],
            b"a = 1\nb = \"hunter2\"\n",
            b"a = 1\n\xffhunter2",
        ] {
            fs::write(&path, text).expect("written");
            let read = read_toml::<TomlTable>(&path).map(drop);
            let written = update_toml(&path, |table: &mut TomlTable| {
                table.insert("c".into(), 3);
                Ok(())
            });
            for error in [read, written].map(|outcome| outcome.expect_err("damaged")) {
                let error = format!("{error:#}");
                assert!(error.contains("table.toml is damaged in line 2"), "{error}");
                assert!(!error.contains("hunter2"), "{error}");
            }
            assert_eq!(fs::read(&path).expect("there"), text);
        }
    }
}

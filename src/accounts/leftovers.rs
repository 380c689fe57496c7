//! Directories of removed users and folders: set aside, so that no later one of the same name
//! inherits what is in them.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::AccountsError;

/// Moves `<data>/<kind>/<name>` to `<data>/removed/<name>-<time>`, if there is anything in it.
/// Says where it is now.
pub(super) async fn set_aside(
    data: &Path,
    kind: &'static str,
    name: &str,
) -> Result<Option<PathBuf>, AccountsError> {
    let from = data.join(kind).join(name);
    let removed = data.join("removed");
    let name = name.to_owned();
    let moving = {
        let from = from.clone();
        move || set_aside_blocking(&from, &removed, &name)
    };
    let failed = |source| AccountsError::Io {
        doing: "set aside",
        path: from,
        source,
    };
    match spawn_blocking(moving).await {
        Ok(moved) => moved.map_err(failed),
        Err(panicked) => Err(failed(panicked.into())),
    }
}

fn set_aside_blocking(from: &Path, removed: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    // Removes an empty directory, and nothing else.
    match std::fs::remove_dir(from) {
        Ok(()) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(removed)?;
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let mut to = removed.join(format!("{name}-{time}"));
    let mut number = 1;
    loop {
        match std::fs::rename(from, &to) {
            // A user and a folder of one name were removed in the same second.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => number += 1,
            result => return result.map(|()| Some(to)),
        }
        to.set_file_name(format!("{name}-{time}-{number}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_set_aside_never_covers_what_was_set_aside_before() {
        let data = tempfile::tempdir().expect("a directory");
        let home = data.path().join("homes/alice");
        let mut places = std::collections::HashSet::new();
        for number in ["1", "2", "3"] {
            std::fs::create_dir_all(&home).expect("made");
            std::fs::write(home.join(number), number).expect("written");
            let place = set_aside(data.path(), "homes", "alice").await;
            let place = place.expect("moved").expect("there was something");
            assert_eq!(
                std::fs::read_to_string(place.join(number)).expect("kept"),
                number
            );
            assert!(places.insert(place));
            assert!(!home.exists());
        }
    }

    #[tokio::test]
    async fn nothing_and_an_empty_directory_leave_nothing_behind() {
        let data = tempfile::tempdir().expect("a directory");
        let home = data.path().join("homes/alice");
        assert_eq!(
            set_aside(data.path(), "homes", "alice")
                .await
                .expect("fine"),
            None
        );
        std::fs::create_dir_all(&home).expect("made");
        assert_eq!(
            set_aside(data.path(), "homes", "alice")
                .await
                .expect("fine"),
            None
        );
        assert!(!home.exists() && !data.path().join("removed").exists());
    }
}

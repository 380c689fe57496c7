//! Entries that replace one of another kind, such as a file in the place of a directory.
//!
//! Neither can be replaced in one step. The new one is made beside the old one, under a random name;
//! once it is complete the old one is deleted, and the new one gets its name. So an error leaves the old
//! one whole, and a run that is killed leaves one of them.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::client::sync::context::SyncContext;
use crate::client::sync::job::SyncDirection;
use crate::client::transfer::blocking::blocking;
use crate::client::tree::join;
use crate::client::{Client, ClientError};
use crate::protocol::{ErrorCode, IfExists};

/// Gives a complete entry its name, which is free by then.
pub(crate) async fn publish(
    context: &SyncContext,
    staged: &str,
    path: &str,
) -> Result<(), ClientError> {
    match context.direction {
        SyncDirection::Up => {
            let (from, to) = (join(&context.remote, staged), join(&context.remote, path));
            let (from, to) = (from.as_str(), to.as_str());
            let mv = |client: Client| async move {
                match client.mv(from, to, IfExists::Fail).await {
                    // An earlier request may have succeeded although its reply did not arrive.
                    Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                        client.stat(to).await.map(drop).map_err(|_| error)
                    }
                    moved => moved.map(drop),
                }
            };
            context.session.retry(&context.progress, mv).await
        }
        SyncDirection::Down => {
            let (from, to) = (context.local.join(staged), context.local.join(path));
            blocking(move || {
                rename_to_free_name(&from, &to)
                    .map_err(|error| ClientError::local("rename", from, error))
            })
            .await
        }
    }
}

fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system cannot tell whether the name is free.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if to.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        renamed => Ok(renamed?),
    }
}

/// Removes an entry that replaces nothing after all, as far as it was made.
pub(crate) async fn discard(context: &SyncContext, staged: &str) {
    match context.direction {
        SyncDirection::Up => {
            let path = join(&context.remote, staged);
            let path = path.as_str();
            let rm = |client: Client| async move { client.rm(path, true).await };
            // The next run with `--delete` deletes what is left.
            let _ = context.session.retry(&context.progress, rm).await;
        }
        SyncDirection::Down => {
            let path = context.local.join(staged);
            let _ = blocking(move || {
                let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                let _ = if is_dir {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                Ok(())
            })
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_again_is_not_replaced() {
        let root = tempfile::tempdir().expect("a directory");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::write(&from, "new").expect("written");
        fs::write(&to, "old").expect("written");
        assert!(rename_to_free_name(&from, &to).is_err());
        assert_eq!(fs::read_to_string(&to).expect("there"), "old");
        fs::remove_file(&to).expect("removed");
        rename_to_free_name(&from, &to).expect("renamed");
        assert_eq!(fs::read_to_string(&to).expect("there"), "new");
    }
}

//! Changes on the server. Each may be repeated after a lost connection.

use crate::client::sync::context::SyncContext;
use crate::client::sync::entry::{SyncEntry, parent_of};
use crate::client::sync::rules::MetadataChange;
use crate::client::tree::join;
use crate::client::{Client, ClientError};
use crate::protocol::{ErrorCode, IfExists, SetStat};

/// Makes a directory, and those above it.
pub(crate) async fn make_directory(context: &SyncContext, path: &str) -> Result<(), ClientError> {
    make_remote_directory(context, &context.remote_path(path)).await
}

async fn make_remote_directory(context: &SyncContext, path: &str) -> Result<(), ClientError> {
    let mkdir = |client: Client| async move { client.mkdir(path, true).await };
    context.session.retry(&context.progress, mkdir).await?;
    Ok(())
}

/// Sets the metadata of `entry` that differ.
pub(crate) async fn set_metadata(
    context: &SyncContext,
    entry: &SyncEntry,
    change: MetadataChange,
) -> Result<(), ClientError> {
    let request = SetStat {
        path: context.remote_path(&entry.path),
        modified: change.modified.then_some(entry.modified),
        mode: entry.mode.filter(|_| change.mode),
    };
    let set = |client: Client| {
        let request = request.clone();
        async move { client.call(request).await }
    };
    context.session.retry(&context.progress, set).await?;
    Ok(())
}

/// Renames `from` to the path of `entry`, or copies it there, and sets the metadata of `entry`.
pub(crate) async fn relocate(
    context: &SyncContext,
    from: &str,
    entry: &SyncEntry,
    copy: bool,
) -> Result<(), ClientError> {
    let (source, target) = (context.remote_path(from), context.remote_path(&entry.path));
    let (source, target) = (source.as_str(), target.as_str());
    let relocate = |client: Client| async move {
        if copy {
            client.cp(source, target, IfExists::Replace).await
        } else {
            client.mv(source, target, IfExists::Replace).await
        }
    };
    context.session.retry(&context.progress, relocate).await?;
    let change = MetadataChange {
        modified: true,
        mode: context.options.rules.modes && entry.mode.is_some(),
    };
    set_metadata(context, entry, change).await
}

/// Deletes a file or an empty directory. One that does not exist any more is deleted.
pub(crate) async fn delete(context: &SyncContext, path: &str) -> Result<(), ClientError> {
    let path = context.remote_path(path);
    let path = path.as_str();
    let rm = |client: Client| async move { client.rm(path, false).await };
    match context.session.retry(&context.progress, rm).await {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        result => result.map(drop),
    }
}

/// Moves a file into the backup directory, under its path relative to the root. One that does not
/// exist any more is left out; one of the same path in the backup directory is kept, too.
pub(crate) async fn back_up(
    context: &SyncContext,
    path: &str,
    backup_directory: &str,
) -> Result<(), ClientError> {
    let (from, to) = (context.remote_path(path), join(backup_directory, path));
    let (from, to) = (from.as_str(), to.as_str());
    make_remote_directory(context, parent_of(to)).await?;
    let mv = |client: Client| async move { client.mv(from, to, IfExists::Rename).await };
    absent_is_done(context.session.retry(&context.progress, mv).await)
}

/// Copies a file that is about to be replaced into the backup directory, as [`back_up`] moves one.
pub(crate) async fn copy_to_backup(
    context: &SyncContext,
    path: &str,
    backup_directory: &str,
) -> Result<(), ClientError> {
    let (from, to) = (context.remote_path(path), join(backup_directory, path));
    let (from, to) = (from.as_str(), to.as_str());
    make_remote_directory(context, parent_of(to)).await?;
    let cp = |client: Client| async move { client.cp(from, to, IfExists::Rename).await };
    absent_is_done(context.session.retry(&context.progress, cp).await)
}

fn absent_is_done<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(()),
        result => result.map(drop),
    }
}

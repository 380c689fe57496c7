//! The actions of a plan other than transfers, on the side that changes. Of a transfer only what precedes
//! it: the old file is put into the backup directory.

use std::path::Path;

use crate::client::ClientError;
use crate::client::local_tree::{LocalTree, TreePath};
use crate::client::sync::action::SyncAction;
use crate::client::sync::context::SyncContext;
use crate::client::sync::job::SyncDirection;
use crate::client::sync::{local_actions, remote_actions};
use crate::client::transfer::blocking::blocking;

/// An action and its result.
pub(crate) type PerformedAction = (SyncAction, Result<(), ClientError>);

/// Performs an action, of a transfer what precedes it.
///
/// # Errors
/// Only if the runtime is shutting down. An error of the action is in its result.
pub(crate) async fn perform(
    context: SyncContext,
    action: SyncAction,
) -> Result<PerformedAction, ClientError> {
    match context.direction {
        SyncDirection::Up => {
            let result = perform_remotely(&context, &action).await;
            Ok((action, result))
        }
        SyncDirection::Down => {
            blocking(move || {
                let result = perform_locally(&context, &action);
                Ok((action, result))
            })
            .await
        }
    }
}

async fn perform_remotely(context: &SyncContext, action: &SyncAction) -> Result<(), ClientError> {
    match action {
        SyncAction::MakeDirectory(entry) => {
            remote_actions::make_directory(context, &entry.path).await
        }
        SyncAction::SetMetadata { entry, change } => {
            remote_actions::set_metadata(context, entry, *change).await
        }
        SyncAction::Move { from, entry } => {
            remote_actions::relocate(context, from, entry, false).await
        }
        SyncAction::Copy { from, entry } => {
            remote_actions::relocate(context, from, entry, true).await
        }
        SyncAction::Delete(entry) => match &context.options.backup_directory {
            Some(backup) if !entry.is_dir() => {
                remote_actions::back_up(context, &entry.path, backup).await
            }
            _ => remote_actions::delete(context, &entry.path).await,
        },
        SyncAction::Transfer {
            replaces: Some(old),
            ..
        } => match &context.options.backup_directory {
            Some(backup) => remote_actions::copy_to_backup(context, &old.path, backup).await,
            None => Ok(()),
        },
        SyncAction::Transfer { .. } | SyncAction::Keep(_) | SyncAction::Skip { .. } => Ok(()),
    }
}

fn perform_locally(context: &SyncContext, action: &SyncAction) -> Result<(), ClientError> {
    let tree = LocalTree::open(&context.local)
        .map_err(|error| ClientError::local("open", &*context.local, error))?;
    let entry_path = |path: &str| TreePath {
        tree: &tree,
        relative: context.local_relative(path),
        display: context.local_path(path),
    };
    let path = entry_path(action.path());
    match action {
        SyncAction::MakeDirectory(entry) => local_actions::make_directory(&path, entry),
        SyncAction::SetMetadata { entry, change } => {
            local_actions::set_metadata(&path, entry, *change)
        }
        SyncAction::Move { from, entry } => {
            local_actions::relocate(&entry_path(from), &path, entry, false)
        }
        SyncAction::Copy { from, entry } => {
            local_actions::relocate(&entry_path(from), &path, entry, true)
        }
        SyncAction::Delete(entry) if entry.is_dir() => local_actions::delete_directory(&path),
        SyncAction::Delete(entry) => match &context.options.backup_directory {
            Some(backup) => {
                let target = Path::new(backup).join(&entry.path);
                local_actions::back_up(&path, &target)
            }
            None => local_actions::delete_file(&path),
        },
        SyncAction::Transfer {
            replaces: Some(old),
            ..
        } => match &context.options.backup_directory {
            Some(backup) => {
                let target = Path::new(backup).join(&old.path);
                local_actions::copy_to_backup(&path, &target)
            }
            None => Ok(()),
        },
        SyncAction::Transfer { .. } | SyncAction::Keep(_) | SyncAction::Skip { .. } => Ok(()),
    }
}

//! The two roots of a run: checked, and made at the destination if it does not exist.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::client::sync::context::SyncContext;
use crate::client::sync::filter::PathFilter;
use crate::client::sync::job::{SyncDirection, SyncJob};
use crate::client::sync::listing::ListingRequest;
use crate::client::sync::rules::Comparison;
use crate::client::sync::scan::{LinkPolicy, ScanOptions};
use crate::client::transfer::blocking::blocking;
use crate::client::tree::join;
use crate::client::{Client, ClientError, Progress, Session};
use crate::protocol::{ErrorCode, Kind};

/// The feature of a server that lists whole trees.
const RECURSIVE_FEATURE: &str = "recursive";

/// The feature of a server that keeps permission bits.
const MODE_FEATURE: &str = "mode";

/// A run that can begin.
pub(crate) struct PreparedSync {
    pub(crate) context: SyncContext,
    pub(crate) filter: PathFilter,
    pub(crate) listing: ListingRequest,
    /// The destination was there before this run.
    pub(crate) destination_existed: bool,
}

/// Checks the roots and compiles the filters.
pub(crate) async fn prepare(
    session: &Session,
    progress: &Progress,
    job: SyncJob,
) -> Result<PreparedSync, ClientError> {
    let SyncJob {
        direction,
        local,
        remote,
        mut options,
    } = job;
    let client = session.client();
    if !client.has_feature(RECURSIVE_FEATURE) {
        return Err(ClientError::MissingFeature("list whole trees"));
    }
    options.rules.modes &= client.has_feature(MODE_FEATURE);
    let makes = !options.dry_run;
    let is_source = direction == SyncDirection::Up;
    let find_local = |makes| {
        let root = local.clone();
        blocking(move || find_local_root(&root, is_source, makes))
    };
    // The destination is made once the source is known to exist.
    let local_existed = find_local(false).await?;
    let (remote, remote_existed) =
        find_remote_root(session, progress, &remote, !is_source, makes).await?;
    if makes && !local_existed {
        find_local(true).await?;
    }
    let mut reserved = None;
    if let Some(backup) = options.backup_directory.take() {
        let (backup, path) = match direction {
            SyncDirection::Up => remote_backup(session, progress, &remote, &backup).await?,
            SyncDirection::Down => {
                let root = local.clone();
                blocking(move || local_backup(&root, &backup)).await?
            }
        };
        options.backup_directory = Some(backup);
        reserved = path;
    }
    let filter_options = options.filter.clone();
    let root = local.clone();
    let filter = blocking(move || PathFilter::new(&filter_options, root, reserved)).await?;
    let scan = ScanOptions {
        links: match direction {
            SyncDirection::Up => options.links,
            SyncDirection::Down => LinkPolicy::Skip,
        },
        one_file_system: options.one_file_system,
    };
    let listing = ListingRequest {
        direction,
        local: local.clone(),
        remote: remote_existed.then(|| remote.clone()),
        scan,
        with_digests: options.rules.comparison == Comparison::Checksum,
    };
    Ok(PreparedSync {
        context: SyncContext {
            session: session.clone(),
            progress: progress.clone(),
            direction,
            local: Arc::new(local),
            remote: remote.into(),
            options: Arc::new(options),
            staged: Arc::default(),
        },
        filter,
        listing,
        destination_existed: match direction {
            SyncDirection::Up => remote_existed,
            SyncDirection::Down => local_existed,
        },
    })
}

/// Whether the local root exists. A source must; a destination is made if `makes`.
fn find_local_root(root: &Path, is_source: bool, makes: bool) -> Result<bool, ClientError> {
    let failed = |error| ClientError::local("list", root, error);
    match root.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(failed(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_source => {
            if makes {
                std::fs::create_dir_all(root)
                    .map_err(|error| ClientError::local("make directory", root, error))?;
            }
            Ok(false)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The absolute path of the root on the server, and whether it exists. A source must; a destination
/// is made if `makes`.
async fn find_remote_root(
    session: &Session,
    progress: &Progress,
    root: &str,
    is_source: bool,
    makes: bool,
) -> Result<(String, bool), ClientError> {
    match session.stat(root).await {
        Ok(stat) if stat.entry.kind == Kind::Dir => Ok((stat.path, true)),
        Ok(stat) => Err(ClientError::InvalidSync(format!(
            "{} is not a directory",
            stat.path
        ))),
        Err(error) if error.code() == Some(ErrorCode::NotFound) && !is_source => {
            if !makes {
                return Ok((absolute(session, progress, root).await?, false));
            }
            let mkdir = |client: Client| async move { client.mkdir(root, true).await };
            Ok((session.retry(progress, mkdir).await?, false))
        }
        Err(error) => Err(error),
    }
}

/// The absolute path of the backup directory on the server, and its path in the root if it is there.
async fn remote_backup(
    session: &Session,
    progress: &Progress,
    root: &str,
    backup: &str,
) -> Result<(String, Option<String>), ClientError> {
    let backup = absolute(session, progress, backup).await?;
    if backup == root {
        return Err(backup_is_root());
    }
    let inside = backup.strip_prefix(&join(root, "")).map(str::to_owned);
    Ok((backup, inside))
}

/// The same of a local backup directory.
fn local_backup(root: &Path, backup: &str) -> Result<(String, Option<String>), ClientError> {
    let failed = |error| ClientError::local("resolve", backup, error);
    let root = without_links(root).map_err(failed)?;
    let path = without_links(Path::new(backup)).map_err(failed)?;
    if path == root {
        return Err(backup_is_root());
    }
    let inside = path.strip_prefix(&root).ok().map(PathBuf::from);
    let inside = inside.and_then(|path| path.into_os_string().into_string().ok());
    Ok((backup.to_owned(), inside))
}

/// The absolute path, without links as far as it exists.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return Ok(real.join(rest));
        }
    }
    Ok(path)
}

fn backup_is_root() -> ClientError {
    let text =
        "the backup directory is the directory that is synced; choose one in it or elsewhere";
    ClientError::InvalidSync(text.into())
}

/// A path on the server as the server resolves it, without a request for it.
async fn absolute(
    session: &Session,
    progress: &Progress,
    path: &str,
) -> Result<String, ClientError> {
    let pwd = |client: Client| async move { client.pwd().await };
    let directory = if path.starts_with('/') {
        String::new()
    } else {
        session.retry(progress, pwd).await?
    };
    Ok(resolve(&directory, path))
}

fn resolve(directory: &str, path: &str) -> String {
    let mut names = Vec::new();
    for name in directory.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_as_the_server_does() {
        assert_eq!(resolve("/home", "a/./b/../c"), "/home/a/c");
        assert_eq!(resolve("", "/../x/"), "/x");
        assert_eq!(resolve("/", "."), "/");
    }

    #[test]
    fn a_backup_directory_in_the_root_takes_no_part_in_the_sync() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name).display().to_string();
        std::fs::create_dir(path("old")).expect("made");
        let inside = local_backup(root.path(), &path("old")).expect("resolved");
        assert_eq!(inside.1.as_deref(), Some("old"));
        let (_, outside) = local_backup(&root.path().join("old"), &path("new")).expect("resolved");
        assert_eq!(outside, None);
        let same = local_backup(root.path(), &root.path().display().to_string());
        assert!(same.is_err());
    }
}

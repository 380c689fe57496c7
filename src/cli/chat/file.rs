//! Handing over a file: from this machine by way of the sender's own space, or from there.

use std::path::{Path, PathBuf};

use tokio::fs::metadata;

use crate::cli::output::safe;
use crate::cli::remote_path::{is_marked_remote, without_mark};
use crate::client::{FileOptions, Progress, Session};
use crate::protocol::{ErrorCode, IfExists};

/// Where files of this machine lie on the server once they are handed over.
const SENT: &str = "/sent";

/// Offers a file to `to`; what became of it, for a person.
pub(super) async fn offer_file(
    session: Session,
    to: String,
    path: String,
) -> Result<String, String> {
    let local = if is_marked_remote(&path) {
        None
    } else {
        local_file(&path).await
    };
    let remote = match local {
        Some(local) => put(&session, &local).await?,
        None => remote_file(&session, without_mark(&path)).await?,
    };
    let offered = session.client().send(&to, &remote).await;
    offered.map_err(|error| format!("cannot offer {remote}: {error}"))?;
    Ok(format!("offered {remote} to {to}"))
}

/// A file of this machine, if the path names one.
async fn local_file(path: &str) -> Option<PathBuf> {
    let local = match path.strip_prefix("~/") {
        Some(rest) => etcetera::home_dir().ok()?.join(rest),
        None => PathBuf::from(path),
    };
    let is_file = metadata(&local).await.is_ok_and(|found| found.is_file());
    is_file.then_some(local)
}

async fn put(session: &Session, local: &Path) -> Result<String, String> {
    let name = local.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| "cannot offer the file: its name is not UTF-8".to_owned())?;
    let options = FileOptions {
        if_exists: Some(IfExists::Rename),
        parents: true,
        ..FileOptions::default()
    };
    let remote = format!("{SENT}/{name}");
    let progress = Progress::new();
    match session.put_file(local, &remote, options, &progress).await {
        Ok(reply) => Ok(reply.path),
        Err(error) => Err(format!("cannot offer {name}: {error}")),
    }
}

async fn remote_file(session: &Session, path: &str) -> Result<String, String> {
    match session.stat(path).await {
        Ok(stat) => Ok(stat.path),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Err(format!(
            "no such file on this machine or on the server: {}",
            safe(path)
        )),
        Err(error) => Err(error.to_string()),
    }
}

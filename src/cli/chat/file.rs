//! Handing over a file: from this machine by way of the sender's own space, or from there.

use std::path::{Path, PathBuf};

use tokio::fs::metadata;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, interval_at};

use crate::cli::output::safe;
use crate::cli::progress::progress_line;
use crate::cli::recent_rate::RecentRate;
use crate::cli::remote_path::{is_marked_remote, without_mark};
use crate::client::{FileOptions, Progress, Session};
use crate::protocol::{ErrorCode, IfExists};

/// Where files of this machine lie on the server once they are handed over.
const SENT: &str = "/sent";

/// The time without a line about an upload: at first, and after each.
const QUIET_AT_FIRST: Duration = Duration::from_secs(1);
const QUIET_BETWEEN: Duration = Duration::from_secs(3);

/// Lines about uploads that wait to be shown; while nobody shows them, no more are made.
pub(super) const MAX_WAITING_LINES: usize = 8;

/// Offers a file to `to`; what became of it, for a person. Until then `lines` gets how far its upload is: a
/// bar that moves would tear the line that is being typed.
pub(super) async fn offer_file(
    session: Session,
    to: String,
    path: String,
    lines: mpsc::Sender<String>,
) -> Result<String, String> {
    let local = if is_marked_remote(&path) {
        None
    } else {
        local_file(&path).await
    };
    let remote = match local {
        Some(local) => put(&session, &local, &lines).await?,
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

async fn put(
    session: &Session,
    local: &Path,
    lines: &mpsc::Sender<String>,
) -> Result<String, String> {
    let name = local.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| "cannot offer the file: its name is not UTF-8".to_owned())?;
    let options = FileOptions {
        if_exists: Some(IfExists::Rename),
        parents: true,
        ..FileOptions::default()
    };
    let remote = format!("{SENT}/{name}");
    let progress = Progress::new();
    let mut putting = std::pin::pin!(session.put_file(local, &remote, options, &progress));
    let mut ticks = interval_at(Instant::now() + QUIET_AT_FIRST, QUIET_BETWEEN);
    let mut rate = RecentRate::default();
    let put = loop {
        rate.add(Instant::now(), progress.sent_bytes());
        tokio::select! {
            put = &mut putting => break put,
            _ = ticks.tick() => {
                rate.add(Instant::now(), progress.sent_bytes());
                let _ = lines.try_send(progress_line(&progress, &rate, name));
            }
        }
    };
    match put {
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

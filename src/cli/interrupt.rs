//! Work that ends when a signal asks this process to end.

use std::io;

use crate::cli::exit::Interrupted;
use crate::cli::remote_session::RemoteSession;

/// Does `work` unless a signal comes first; what was under way is then dropped, which cleans up.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        outcome = work => outcome,
        signal = interruption() => {
            signal?;
            Err(Interrupted { kept: false }.into())
        }
    }
}

/// [`unless_interrupted`] for work with `remote`. What is dropped is cancelled there, except
/// uploads that could go on: the server keeps those if the connection goes away first.
pub(super) async fn unless_cut_off<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    remote: &RemoteSession,
) -> anyhow::Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        outcome = &mut work => outcome,
        signal = interruption() => {
            signal?;
            let kept = remote.session.has_resumable_upload();
            if kept {
                remote.session.hang_up();
            }
            Err(Interrupted { kept }.into())
        }
    }
}

/// Resolves when a signal asks this process to end.
pub(super) async fn interruption() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome?,
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}

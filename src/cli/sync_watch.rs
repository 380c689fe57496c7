//! `haul sync --watch`: a mirror that is kept up to date.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::reconnect_notice::ReconnectNotice;
use crate::cli::remote_session::RemoteSession;
use crate::client::EventSubscription;
use crate::client::sync::{SyncDirection, SyncJob, local_fingerprint};
use crate::protocol::Event;

/// The time after a change in which more changes are waited for, so that one run transfers them all.
const SETTLE: Duration = Duration::from_millis(300);

/// The shortest time between two looks at a local tree.
const MIN_SCAN_PAUSE: Duration = Duration::from_millis(700);

/// A local tree is scanned for at most one part in so many of the time.
const SCAN_SHARE: u32 = 10;

/// Waits for changes of the source of a sync.
pub(super) enum SourceWatch {
    /// The server reports changes.
    Remote(Box<EventSubscription>),
    /// The local tree is scanned again and again.
    Local {
        job: Box<SyncJob>,
        last: Option<u64>,
    },
}

impl SourceWatch {
    /// Begins before the first run, so that no change is missed.
    pub(super) async fn begin(remote: &RemoteSession, job: &SyncJob) -> anyhow::Result<Self> {
        Ok(match job.direction {
            SyncDirection::Down => {
                let events = EventSubscription::new(remote.session.clone());
                Self::Remote(Box::new(events.watching(&job.remote, None)))
            }
            SyncDirection::Up => Self::Local {
                last: Some(local_fingerprint(job).await?),
                job: Box::new(job.clone()),
            },
        })
    }

    /// Does `work`, and returns its result with whether the source changed meanwhile, if that is known.
    ///
    /// # Errors
    /// The events of the server cannot be followed any more.
    pub(super) async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> anyhow::Result<(T, bool)> {
        let Self::Remote(events) = self else {
            return Ok((work.await, false));
        };
        let mut work = std::pin::pin!(work);
        let mut has_changed = false;
        loop {
            tokio::select! {
                result = &mut work => return Ok((result, has_changed)),
                event = events.next() => has_changed |= matches!(event?, Event::Changed(_)),
            }
        }
    }

    /// Resolves once the source has changed and has settled.
    pub(super) async fn changed(&mut self, remote: &RemoteSession) -> anyhow::Result<()> {
        match self {
            Self::Remote(events) => {
                let mut waits = ReconnectNotice::for_session(remote, events.progress());
                loop {
                    tokio::select! {
                        biased;
                        note = waits.next() => remote.output.note(&note),
                        event = events.next() => if matches!(event?, Event::Changed(_)) {
                            break;
                        },
                    }
                }
                let mut settled = std::pin::pin!(sleep(SETTLE));
                loop {
                    tokio::select! {
                        () = &mut settled => return Ok(()),
                        event = events.next() => drop(event?),
                    }
                }
            }
            Self::Local { job, last } => {
                let mut pause = MIN_SCAN_PAUSE;
                loop {
                    sleep(pause).await;
                    let started = Instant::now();
                    let now = Some(local_fingerprint(job).await?);
                    pause = MIN_SCAN_PAUSE.max(started.elapsed() * SCAN_SHARE);
                    if now != *last {
                        *last = now;
                        return Ok(());
                    }
                }
            }
        }
    }
}

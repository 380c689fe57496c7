//! The signals of the daemon: it stops, aborts running work, or reads its configuration again.

use std::io::IsTerminal;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal as SystemSignal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::server::Shutdown;
use crate::telemetry::{LostLines, Telemetry};

/// The time for everything after the drain: aborting sessions, finishing disk writes, writing the log.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_millis(1500);

/// The time to write the log at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(400);

/// The signals that the daemon handles. As the first process of a container it gets no others.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    at_terminal: bool,
}

impl Signals {
    pub(super) fn watch() -> anyhow::Result<Self> {
        let watch = |kind, name| signal(kind).with_context(|| format!("cannot watch for {name}"));
        // A write beyond the limit of file sizes (`LimitFSIZE`) would kill the process. If the signal is
        // caught, the write fails instead. The handler stays installed although the stream is dropped.
        let _ = watch(SignalKind::from_raw(SystemSignal::XFSZ.as_raw()), "SIGXFSZ")?;
        Ok(Self {
            terminate: watch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: watch(SignalKind::interrupt(), "SIGINT")?,
            hang_up: watch(SignalKind::hangup(), "SIGHUP")?,
            at_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// The next signal.
    async fn next(&mut self) -> SignalNotice {
        tokio::select! {
            _ = self.terminate.recv() => SignalNotice::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalNotice::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                // Closing the terminal sends the same signal, and then the daemon stops.
                if self.at_terminal && !std::io::stderr().is_terminal() {
                    SignalNotice::Stop("the end of its terminal")
                } else {
                    SignalNotice::Reload
                }
            }
        }
    }
}

/// The request of a signal.
enum SignalNotice {
    Stop(&'static str),
    Reload,
}

/// The log, shared by everything that can end the process.
#[derive(Debug, Clone)]
pub(super) struct SignalLogs(Arc<Mutex<Option<Telemetry>>>);

impl SignalLogs {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self(Arc::new(Mutex::new(Some(telemetry))))
    }

    /// Writes the queued lines, within [`FLUSH_TIMEOUT`].
    pub(super) fn finish(&self) {
        // A second caller waits for the lock until the lines are written.
        let mut telemetry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(telemetry) = telemetry.take() {
            telemetry.finish(FLUSH_TIMEOUT);
        }
    }

    /// Lines that were lost since the start; `None` once the log has ended.
    pub(super) fn lost_lines(&self) -> Option<LostLines> {
        let telemetry = self.0.try_lock().ok()?;
        telemetry.as_ref().map(Telemetry::lost_lines)
    }

    /// Ends the process after `time`, if it has not ended by then. It uses its own thread, because the
    /// runtime may hang.
    fn end_within(&self, time: Duration) {
        let logs = self.clone();
        thread::spawn(move || {
            thread::sleep(time);
            warn!(
                name: "stopped_by_force",
                "stopped without waiting for work that the disk or the start delays"
            );
            logs.finish();
            process::exit(0);
        });
    }
}

/// Handles signals for as long as the runtime lives: the first request to stop starts the drain, which
/// may take `drain_timeout()`, the second aborts sessions, the third ends the process. `reload` is
/// notified of SIGHUP; the reload runs elsewhere, so that a stop never waits for it.
pub(super) async fn handle(
    mut signals: Signals,
    shutdown: Shutdown,
    logs: SignalLogs,
    drain_timeout: impl Fn() -> Duration,
    reload: Arc<Notify>,
) {
    let mut is_ending = false;
    loop {
        let notice = tokio::select! {
            biased;
            // An operator may have started the drain: from now on the process will end.
            () = shutdown.drain.cancelled(), if !is_ending => {
                is_ending = true;
                logs.end_within(drain_timeout() + EXIT_TIMEOUT);
                continue;
            }
            notice = signals.next() => notice,
        };
        match notice {
            SignalNotice::Reload => reload.notify_one(),
            SignalNotice::Stop(by) if !shutdown.drain.is_cancelled() => {
                info!(name: "stop_asked", "told to stop by {by}");
                shutdown.drain.cancel();
            }
            SignalNotice::Stop(by) if !shutdown.stop.is_cancelled() => {
                warn!(name: "stop_asked_again", "told to stop again by {by}");
                logs.end_within(EXIT_TIMEOUT);
                shutdown.stop.cancel();
            }
            SignalNotice::Stop(_) => logs.end_within(Duration::ZERO),
        }
    }
}

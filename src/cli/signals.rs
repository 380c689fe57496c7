//! The signals of the daemon: it stops, aborts what still runs, or reads its configuration again.

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

/// For all that comes after the time for running transfers: sessions that are cut off, threads that
/// still write, the log.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_millis(1500);

/// For the log to be written at the end.
const FLUSH: Duration = Duration::from_millis(400);

/// The signals that are watched for from here on. As the first process of a container the daemon
/// gets no others.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    at_terminal: bool,
}

impl Signals {
    pub(super) fn watch() -> anyhow::Result<Self> {
        let watch = |kind, name| signal(kind).with_context(|| format!("cannot watch for {name}"));
        // A write beyond the limit of file sizes (`LimitFSIZE`) ends the process unless the signal
        // is caught; then the write fails. Once caught, it stays caught: nothing reads it.
        let _ = watch(SignalKind::from_raw(SystemSignal::XFSZ.as_raw()), "SIGXFSZ")?;
        Ok(Self {
            terminate: watch(SignalKind::terminate(), "SIGTERM")?,
            interrupt: watch(SignalKind::interrupt(), "SIGINT")?,
            hang_up: watch(SignalKind::hangup(), "SIGHUP")?,
            at_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// The next signal that is not lost for good.
    async fn next(&mut self) -> SignalNotice {
        tokio::select! {
            _ = self.terminate.recv() => SignalNotice::Stop("SIGTERM"),
            _ = self.interrupt.recv() => SignalNotice::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                // A terminal that is closed says so by the same signal; nobody is left to serve.
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

/// The log, for whoever ends the process.
#[derive(Debug, Clone)]
pub(super) struct SignalLogs(Arc<Mutex<Option<Telemetry>>>);

impl SignalLogs {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Self(Arc::new(Mutex::new(Some(telemetry))))
    }

    /// Writes what waits, if that can be done in a moment.
    pub(super) fn finish(&self) {
        // Held meanwhile: who comes second waits until it is written.
        let mut telemetry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(telemetry) = telemetry.take() {
            telemetry.finish(FLUSH);
        }
    }

    /// Lines that were lost since the start; nothing to tell once it has ended.
    pub(super) fn lost_lines(&self) -> Option<LostLines> {
        let telemetry = self.0.try_lock().ok()?;
        telemetry.as_ref().map(Telemetry::lost_lines)
    }

    /// Ends the process after `time`, if it has not ended by then. A thread, because what it waits
    /// for may be the one that hangs.
    fn end_within(&self, time: Duration) {
        let logs = self.clone();
        thread::spawn(move || {
            thread::sleep(time);
            warn!(
                name: "stopped_by_force",
                "stopped, leaving behind what the disk or the start holds up"
            );
            logs.finish();
            process::exit(0);
        });
    }
}

/// Obeys signals for as long as the runtime lives: the first that says stop begins to drain, for
/// `patience()`, the second cuts off, the third ends the process. `reload` is notified of SIGHUP:
/// reading files may take long, and no stop waits for it.
pub(super) async fn obey(
    mut signals: Signals,
    shutdown: Shutdown,
    logs: SignalLogs,
    patience: impl Fn() -> Duration,
    reload: Arc<Notify>,
) {
    let mut is_ending = false;
    loop {
        let told = tokio::select! {
            biased;
            // Any signal may have begun it: from now on the process will end.
            () = shutdown.drain.cancelled(), if !is_ending => {
                is_ending = true;
                logs.end_within(patience() + EXIT_TIMEOUT);
                continue;
            }
            told = signals.next() => told,
        };
        match told {
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

//! Notifications to the service manager (`sd_notify(3)`): the server serves, reads its configuration
//! again or stops, how busy it is, and that it is alive.

use std::fmt::{Display, Write as _};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// How often the status line of `systemctl status` is updated.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The microseconds by which each notification extends the time to stop.
const STOP_EXTENSION_MICROS: u32 = 30_000_000;

/// The most queued notifications; further ones are dropped. A manager reads them immediately.
const MAX_QUEUED: usize = 16;

/// The longest wait for the queued notifications at the end.
const FINAL_NOTIFY_TIMEOUT: Duration = Duration::from_millis(200);

/// The service manager that started the daemon, if it asked for notifications. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ServiceManager(Option<SyncSender<ServiceMessage>>);

#[derive(Debug)]
enum ServiceMessage {
    /// Lines of the protocol.
    Notify(String),
    /// Confirms that all notifications before it were sent.
    Flush(Sender<()>),
}

impl ServiceManager {
    /// Finds the manager in the environment. Sending may block, so it has its own thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn find() -> anyhow::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (sender, messages) = sync_channel(MAX_QUEUED);
        let notifier = thread::Builder::new().name("service".into());
        notifier
            .spawn(move || notify_loop(&messages))
            .context("cannot start the thread that notifies the service manager")?;
        Ok(Self(Some(sender)))
    }

    /// The server serves at `address` from now on.
    pub(super) fn ready(&self, address: SocketAddr) {
        let status = format!("Serving at {address}");
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// The server reads its configuration again. [`Self::reloaded`] must follow.
    pub(super) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        // Since systemd 253, the manager waits for a message that is later than its request.
        states.extend(NotifyState::monotonic_usec_now());
        self.send(&states);
    }

    /// The reload has ended, with or without success.
    pub(super) fn reloaded(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// Reports the load of `server` for as long as it runs, and that it stops once `drain` is cancelled.
    pub(super) async fn watch(self, server: Server, address: SocketAddr, drain: CancellationToken) {
        if self.0.is_none() {
            return;
        }
        let mut load = LoadStatus::new(server, address);
        let watchdog = sd_notify::watchdog_enabled();
        // Twice per watchdog period, so that a late notification is no alarm.
        let period = watchdog.map_or(STATUS_INTERVAL, |time| STATUS_INTERVAL.min(time / 2));
        let mut ticks = interval(period.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_draining = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = drain.cancelled(), if !is_draining => {
                    is_draining = true;
                    self.stopping(load.server.drain_timeout());
                }
            }
            if is_draining {
                // One extension is at most an hour, but an operator may allow a longer drain.
                let more = u32::try_from((period * 4).as_micros()).unwrap_or(u32::MAX);
                let more = more.max(STOP_EXTENSION_MICROS);
                self.send(&[NotifyState::ExtendTimeoutUsec(more)]);
            }
            if watchdog.is_some() {
                self.send(&[NotifyState::Watchdog]);
            }
            if let Some(status) = load.changed_status(is_draining) {
                self.send(&[NotifyState::Status(&status)]);
            }
        }
    }

    /// The server stops, within the drain timeout and the time to exit.
    fn stopping(&self, drain_timeout: Duration) {
        let micros = (drain_timeout + crate::cli::signals::EXIT_TIMEOUT).as_micros();
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        self.send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
    }

    /// Reports that the process ends and why, and waits for a short time until that is sent.
    pub(super) fn finish(&self, outcome: &anyhow::Result<()>) {
        let failure = outcome.as_ref().err();
        let reason = failure.map(|error| crate::cli::report::error_line("serve", error));
        let mut states = vec![NotifyState::Stopping];
        states.extend(reason.as_deref().map(NotifyState::Status));
        self.send(&states);
        let (flushed, confirmation) = channel();
        if let Some(sender) = &self.0
            && sender.try_send(ServiceMessage::Flush(flushed)).is_ok()
        {
            let _ = confirmation.recv_timeout(FINAL_NOTIFY_TIMEOUT);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(sender) = &self.0 {
            // The queue is full if the manager hangs; a later notification replaces this one.
            let _ = sender.try_send(ServiceMessage::Notify(lines(states)));
        }
    }
}

fn notify_loop(messages: &Receiver<ServiceMessage>) {
    while let Ok(message) = messages.recv() {
        match message {
            ServiceMessage::Notify(lines) => {
                let sent: io::Result<()> = sd_notify::notify(&[NotifyState::Custom(&lines)]);
                if let Err(error) = sent {
                    tracing::debug!(name: "manager_not_told", %error, "cannot notify the service manager");
                }
            }
            ServiceMessage::Flush(flushed) => {
                let _ = flushed.send(());
            }
        }
    }
}

fn lines(states: &[impl Display]) -> String {
    let texts: Vec<_> = states.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// The status line of a server: how busy it is.
struct LoadStatus {
    server: Server,
    address: SocketAddr,
    /// The time of the last measurement, and the bytes received and sent by then.
    at: Instant,
    traffic: (u64, u64),
    /// The last line.
    line: String,
}

impl LoadStatus {
    fn new(server: Server, address: SocketAddr) -> Self {
        Self {
            traffic: server.traffic(),
            server,
            address,
            at: Instant::now(),
            line: String::new(),
        }
    }

    /// The line, if it has changed and the last one is old enough.
    fn changed_status(&mut self, is_draining: bool) -> Option<String> {
        let (now, traffic) = (Instant::now(), self.server.traffic());
        let passed = now.duration_since(self.at);
        if passed < STATUS_INTERVAL && !is_draining && !self.line.is_empty() {
            return None;
        }
        let rate = |now: u64, before: u64| {
            let millis = passed.as_millis().max(1);
            let rate = u128::from(now.saturating_sub(before)) * 1000 / millis;
            ByteSize(u64::try_from(rate).unwrap_or(u64::MAX))
        };
        let (received, sent) = (
            rate(traffic.0, self.traffic.0),
            rate(traffic.1, self.traffic.1),
        );
        (self.at, self.traffic) = (now, traffic);
        let mut line = if is_draining {
            "Stopping".to_owned()
        } else {
            format!("Serving at {}", self.address)
        };
        let _ = match self.server.session_count() {
            1 => write!(line, ": 1 session"),
            sessions => write!(line, ": {sessions} sessions"),
        };
        let _ = write!(line, ", {received}/s in, {sent}/s out");
        if self.server.is_degraded() {
            line.push_str("; THE DISK HAS FAILED, see the log");
        }
        if line == self.line {
            return None;
        }
        self.line.clone_from(&line);
        Some(line)
    }
}

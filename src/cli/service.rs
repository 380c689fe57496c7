//! Notifications to the service manager (`sd_notify(3)`): that the server serves, reads its
//! configuration again or stops, how busy it is, and that it is alive.

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

/// How often the line of `systemctl status` is brought up to date.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Microseconds that it asks for again and again while it stops.
const EXTENSION: u32 = 30_000_000;

/// Notifications that may wait; more are left out. A manager reads at once.
const WAITING: usize = 16;

/// For what waits to be told at the end.
const FINAL_NOTIFY_TIMEOUT: Duration = Duration::from_millis(200);

/// The way to the service manager that started the daemon, if one did and wants to hear of it.
#[derive(Debug, Clone)]
pub(super) struct ServiceArgs(Option<SyncSender<ServiceMessage>>);

#[derive(Debug)]
enum ServiceMessage {
    /// Lines of the protocol.
    Tell(String),
    /// All before it was told.
    Told(Sender<()>),
}

impl ServiceArgs {
    /// Finds it in the environment. Telling may wait, so a thread of its own does.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn find() -> anyhow::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (sender, messages) = sync_channel(WAITING);
        let teller = thread::Builder::new().name("service".into());
        teller
            .spawn(move || notify_loop(&messages))
            .context("cannot start the thread that tells the service manager")?;
        Ok(Self(Some(sender)))
    }

    /// It serves at `address` from now on.
    pub(super) fn ready(&self, address: SocketAddr) {
        let status = format!("Serving at {address}");
        self.send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// It reads its configuration again. [`Self::reloaded`] must follow.
    pub(super) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        // From systemd 253 on the manager waits for a message that is later than its order.
        states.extend(NotifyState::monotonic_usec_now());
        self.send(&states);
    }

    /// It has read it, whatever came of it.
    pub(super) fn reloaded(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// Tells of `server` for as long as it runs; once `drain` is cancelled, that it stops.
    pub(super) async fn watch(self, server: Server, address: SocketAddr, drain: CancellationToken) {
        if self.0.is_none() {
            return;
        }
        let mut load = Load::new(server, address);
        let watchdog = sd_notify::watchdog_enabled();
        // Twice in its time, so that one that comes late is no alarm.
        let every = watchdog.map_or(STATUS_EVERY, |time| STATUS_EVERY.min(time / 2));
        let mut ticks = interval(every.max(Duration::from_millis(1)));
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
                // What is asked for at once is an hour at most, and it may be told to take longer.
                let more = u32::try_from((every * 4).as_micros()).unwrap_or(u32::MAX);
                self.send(&[NotifyState::ExtendTimeoutUsec(more.max(EXTENSION))]);
            }
            if watchdog.is_some() {
                self.send(&[NotifyState::Watchdog]);
            }
            if let Some(status) = load.news(is_draining) {
                self.send(&[NotifyState::Status(&status)]);
            }
        }
    }

    /// It stops, which may take as long as transfers may go on, and a little more.
    fn stopping(&self, patience: Duration) {
        let most = (patience + crate::cli::signals::EXIT_TIMEOUT).as_micros();
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        self.send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(most)]);
    }

    /// Has everything told, and that it ends and why, if that can be done in a moment.
    pub(super) fn finish(&self, outcome: &anyhow::Result<()>) {
        let failure = outcome.as_ref().err();
        let why = failure.map(|error| crate::cli::exit::error_line("serve", error));
        let mut states = vec![NotifyState::Stopping];
        states.extend(why.as_deref().map(NotifyState::Status));
        self.send(&states);
        let (told, wait) = channel();
        if let Some(sender) = &self.0
            && sender.try_send(ServiceMessage::Told(told)).is_ok()
        {
            let _ = wait.recv_timeout(FINAL_NOTIFY_TIMEOUT);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        if let Some(sender) = &self.0 {
            // Full if the manager hangs; it hears the next one.
            let _ = sender.try_send(ServiceMessage::Tell(lines(states)));
        }
    }
}

fn notify_loop(messages: &Receiver<ServiceMessage>) {
    while let Ok(message) = messages.recv() {
        match message {
            ServiceMessage::Tell(lines) => {
                let told: io::Result<()> = sd_notify::notify(&[NotifyState::Custom(&lines)]);
                if let Err(error) = told {
                    tracing::debug!(name: "manager_not_told", %error, "the service manager cannot be told");
                }
            }
            ServiceMessage::Told(told) => {
                let _ = told.send(());
            }
        }
    }
}

fn lines(states: &[impl Display]) -> String {
    let texts: Vec<_> = states.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// How busy a server is, in one line.
struct Load {
    server: Server,
    address: SocketAddr,
    /// When it was looked at last, and what had been moved by then.
    at: Instant,
    traffic: (u64, u64),
    said: String,
}

impl Load {
    fn new(server: Server, address: SocketAddr) -> Self {
        Self {
            traffic: server.traffic(),
            server,
            address,
            at: Instant::now(),
            said: String::new(),
        }
    }

    /// The line, if it is another than last time and not too soon after it.
    fn news(&mut self, is_draining: bool) -> Option<String> {
        let (now, traffic) = (Instant::now(), self.server.traffic());
        let passed = now.duration_since(self.at);
        if passed < STATUS_EVERY && !is_draining && !self.said.is_empty() {
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
        if line == self.said {
            return None;
        }
        self.said.clone_from(&line);
        Some(line)
    }
}

//! The log of the process: its outputs, its level, and its end.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, reload};

use crate::config::LogSettings;
use crate::telemetry::audit_target::AUDIT;
use crate::telemetry::daily_file::DailyFile;
use crate::telemetry::error::TelemetryError;
use crate::telemetry::format::resolve_format;
use crate::telemetry::level::LogLevelHandle;
use crate::telemetry::line::LineLayer;
use crate::telemetry::output::LogOutput;
use crate::telemetry::queue::{AuditPermits, LostLines};
use crate::telemetry::stderr_log::{log_to_stderr, stderr_is_json};
use crate::telemetry::tail::Tail;

/// The log of this process. Dropping it writes the queued lines, and reports lost lines on standard
/// error.
#[must_use = "the log ends with its guard"]
#[derive(Debug)]
pub struct Telemetry {
    outputs: Vec<LogOutput>,
    level: LogLevelHandle,
    tail: Tail,
    /// Whether the report of lost lines is JSON.
    in_json: bool,
}

/// Starts to log to standard output, and to the log file if there is one, until the result is dropped.
///
/// # Errors
/// [`TelemetryError`], before anything is logged.
pub fn start(log: &LogSettings) -> Result<Telemetry, TelemetryError> {
    let (filter, level) = reload::Layer::new(EnvFilter::try_new(&log.level)?);
    let mut outputs = Vec::new();
    let mut lines = LineLayer::default();
    let mut add = |format, output: LogOutput| {
        lines.add_output(format, output.queue.clone());
        outputs.push(output);
    };
    // Exactly one output keeps the audit: the audit file, else the log file, else standard output.
    let keeps_audit = log.file.is_none() && log.audit_file.is_none();
    let is_terminal = io::stdout().is_terminal();
    add(
        resolve_format(log.format, is_terminal),
        LogOutput::new(io::stdout(), keeps_audit)?,
    );
    if let Some(path) = &log.file {
        let file = open_daily_file(path, log.keep_files, "log.file")?;
        let output = LogOutput::new(file, log.audit_file.is_none())?;
        add(resolve_format(log.format, false), output);
    }
    let tail = Tail::default();
    lines.set_tail(tail.clone());
    let audit = audit(log, &mut outputs)?;
    let registry = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(audit);
    registry.try_init().map_err(|_| TelemetryError::Started)?;
    Ok(Telemetry {
        outputs,
        level: LogLevelHandle::new(level, &log.level),
        tail,
        in_json: stderr_is_json(log.format),
    })
}

/// The layer that writes the audit file, independent of the level; `None` without such a file.
fn audit<S>(
    log: &LogSettings,
    outputs: &mut Vec<LogOutput>,
) -> Result<Option<impl Layer<S>>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(path) = &log.audit_file else {
        return Ok(None);
    };
    let output = LogOutput::new(
        open_daily_file(path, log.keep_audit_files, "log.audit_file")?,
        true,
    )?;
    let mut lines = LineLayer::default();
    lines.add_output(resolve_format(log.format, false), output.queue.clone());
    outputs.push(output);
    // The spans name the session and user.
    let wanted = |metadata: &Metadata<'_>| metadata.is_span() || metadata.target() == AUDIT;
    Ok(Some(lines.with_filter(filter_fn(wanted))))
}

fn open_daily_file(
    path: &Path,
    keep: usize,
    setting: &'static str,
) -> Result<DailyFile, TelemetryError> {
    DailyFile::open(path, keep).map_err(|reason| TelemetryError::File {
        path: path.to_owned(),
        reason,
        setting,
    })
}

impl Telemetry {
    /// The handle that changes the level.
    #[must_use]
    pub fn level(&self) -> LogLevelHandle {
        self.level.clone()
    }

    /// The latest lines, which operators can follow.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Tells whether the audit has capacity; audited requests wait for it.
    ///
    /// # Panics
    /// Never: one output keeps the audit.
    #[must_use]
    pub fn audit_permits(&self) -> AuditPermits {
        // The last output keeps it, see `start`.
        let output = self.outputs.last().expect("there is standard output");
        output.queue.audit_permits()
    }

    /// Ends the log: writes the queued lines, but gives up after `timeout`, because an output may hang.
    pub fn finish(self, timeout: Duration) {
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            drop(self);
            let _ = done.send(());
        });
        let _ = finished.recv_timeout(timeout);
    }

    /// Lines that were dropped since the start.
    #[must_use]
    pub fn lost_lines(&self) -> LostLines {
        let mut all = LostLines::default();
        for output in &self.outputs {
            let lost = output.queue.lost();
            all.lines += lost.lines;
            all.audit += lost.audit;
        }
        all
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        for output in &mut self.outputs {
            output.guard = None;
        }
        let lost = self.lost_lines().lines;
        if lost > 0 {
            // A failure to write to standard error cannot be reported.
            let report = format!("{lost} lines of the log were lost");
            if self.in_json {
                log_to_stderr("lines_lost", &report);
            } else {
                let _ = writeln!(io::stderr(), "haul: {report}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::MakeWriter as _;

    use super::*;
    use crate::telemetry::queue::LINE_OVERHEAD_BYTES;

    /// Writes each line when the test permits it.
    struct SlowWriter(mpsc::Receiver<io::Result<()>>, mpsc::Sender<()>);

    impl Write for SlowWriter {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.1.send(()).expect("the test listens");
            self.0
                .recv()
                .expect("the test permits it")
                .map(|()| line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_do_not_fit_or_cannot_be_written_are_dropped_and_counted() {
        let (resume, permits) = mpsc::channel();
        let (started, starts) = mpsc::channel();
        let line = "second\n".len() + LINE_OVERHEAD_BYTES;
        let output =
            LogOutput::with_queue(SlowWriter(permits, started), 3 * line, false).expect("a thread");
        let queue = output.queue.clone();
        let mut writer = queue.make_writer();
        let mut telemetry = Telemetry {
            outputs: vec![output],
            level: LogLevelHandle::new(reload::Layer::new(EnvFilter::default()).1, ""),
            tail: Tail::default(),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        starts.recv().expect("the first line is being written");
        for line in ["second\n", "third\n", "dropped\n", "dropped\n"] {
            writer.write_all(line.as_bytes()).expect("never fails");
        }
        assert_eq!(telemetry.lost_lines().lines, 2);
        resume.send(Ok(())).expect("waiting");
        resume
            .send(Err(io::ErrorKind::StorageFull.into()))
            .expect("waiting");
        resume.send(Ok(())).expect("waiting");
        telemetry.outputs[0].guard = None;
        assert_eq!(telemetry.lost_lines().lines, 3);
    }

    #[test]
    fn the_end_does_not_wait_for_an_output_that_hangs() {
        let (_resume, permits) = mpsc::channel();
        let (started, starts) = mpsc::channel();
        let output =
            LogOutput::with_queue(SlowWriter(permits, started), 999, false).expect("a thread");
        let queue = output.queue.clone();
        let mut writer = queue.make_writer();
        let telemetry = Telemetry {
            outputs: vec![output],
            level: LogLevelHandle::new(reload::Layer::new(EnvFilter::default()).1, ""),
            tail: Tail::default(),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        starts.recv().expect("the first line is being written");
        telemetry.finish(Duration::from_millis(1));
    }

    #[test]
    fn a_log_file_that_cannot_be_written_is_refused_and_its_setting_named() {
        let log = LogSettings {
            file: Some("/dev/null/haul.log".into()),
            ..LogSettings::default()
        };
        let message = start(&log).expect_err("no directory").to_string();
        assert!(
            message.starts_with("cannot write the log file /dev/null/haul.log: "),
            "{message}"
        );
        assert!(message.ends_with("; check log.file"), "{message}");
    }
}

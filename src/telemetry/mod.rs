//! The log: what it shows, in which shape, and where it goes. Logging never waits: lines that can
//! not be written in time are dropped and counted.
//!
//! Spans are kept as they are entered, so that every line says which session it is about. A filter
//! leaves out the spans below its level with the events: give a span the level `error` to have it
//! on every line.

mod beside;
mod daily;
mod line;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat};

pub use beside::{is_json_beside, log_panics, say_beside};
use daily::DailyFile;
use line::{Format, Lines};

/// Lines that may wait to be written to one place.
const WAITING_LINES: usize = 16 * 1024;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The log file can not be written.
    #[error("can not write the log file {}: {reason}; check log.file", path.display())]
    File {
        /// The file, without the date.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// This process logs already.
    #[error("the log was started already")]
    Started,
    /// There is no log any more.
    #[error("the log has ended")]
    Ended,
}

/// Writes what waits when it is dropped, and says on standard error how many lines were lost.
#[must_use = "the log ends with its guard"]
#[derive(Debug)]
pub struct Telemetry {
    outputs: Vec<Output>,
    level: Level,
    /// Whether the last words are JSON too.
    in_json: bool,
}

/// What is logged, to be changed while it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    /// Logs what `level` says from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] if it makes no sense, [`TelemetryError::Ended`] once the log has
    /// ended.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = EnvFilter::try_new(level)?;
        self.0.reload(filter).map_err(|_| TelemetryError::Ended)
    }
}

/// Starts to log to standard output, and to a file where there is one, until the guard is dropped.
///
/// # Errors
/// [`TelemetryError`], before anything is logged.
pub fn start(log: &Log) -> Result<Telemetry, TelemetryError> {
    let (filter, level) = reload::Layer::new(EnvFilter::try_new(&log.level)?);
    let mut outputs = Vec::new();
    let mut lines = Lines::default();
    let mut add = |format, (writer, output)| {
        lines.add(format, writer);
        outputs.push(output);
    };
    let is_terminal = io::stdout().is_terminal();
    add(
        format_of(log.format, is_terminal),
        Output::new(io::stdout()),
    );
    if let Some(path) = &log.file {
        let file = DailyFile::open(path, log.keep_files);
        let file = file.map_err(|reason| TelemetryError::File {
            path: path.clone(),
            reason,
        })?;
        add(format_of(log.format, false), Output::new(file));
    }
    let registry = tracing_subscriber::registry().with(filter).with(lines);
    registry.try_init().map_err(|_| TelemetryError::Started)?;
    Ok(Telemetry {
        outputs,
        level: Level(level),
        in_json: is_json_beside(log.format),
    })
}

fn format_of(format: LogFormat, is_terminal: bool) -> Format {
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match format {
        LogFormat::Auto if is_terminal => Format::Text { colour },
        LogFormat::Text => Format::Text { colour },
        LogFormat::Auto | LogFormat::Json => Format::Json,
    }
}

impl Telemetry {
    /// The way to change what is logged.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// Writes what waits, but for no longer than `patience`: whoever should take it may be the one
    /// that hangs.
    pub fn finish(self, patience: Duration) {
        let (done, finished) = mpsc::channel();
        std::thread::spawn(move || {
            drop(self);
            let _ = done.send(());
        });
        let _ = finished.recv_timeout(patience);
    }

    /// Lines that were dropped since the start, because nobody took them or the disk was full.
    #[must_use]
    pub fn lost_lines(&self) -> usize {
        self.outputs.iter().map(Output::lost_lines).sum()
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        for output in &mut self.outputs {
            output.worker = None;
        }
        let lost = self.lost_lines();
        if lost > 0 {
            // There is no other place left to say so, and none to report a failure to.
            let said = format!("{lost} lines of the log were lost");
            if self.in_json {
                say_beside("lines_lost", &said);
            } else {
                let _ = writeln!(io::stderr(), "haul: {said}");
            }
        }
    }
}

/// One place that lines go to, through a thread of its own.
#[derive(Debug)]
struct Output {
    /// Dropping it writes what waits, within a second.
    worker: Option<WorkerGuard>,
    not_taken: ErrorCounter,
    not_written: Arc<AtomicUsize>,
}

impl Output {
    fn new(writer: impl Write + Send + 'static) -> (NonBlocking, Self) {
        Self::with_queue(writer, WAITING_LINES)
    }

    fn with_queue(writer: impl Write + Send + 'static, lines: usize) -> (NonBlocking, Self) {
        let not_written = Arc::new(AtomicUsize::new(0));
        let writer = Counted {
            writer,
            failures: Arc::clone(&not_written),
        };
        let (writer, worker) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(lines)
            .thread_name("log")
            .finish(writer);
        let output = Self {
            worker: Some(worker),
            not_taken: writer.error_counter(),
            not_written,
        };
        (writer, output)
    }

    fn lost_lines(&self) -> usize {
        self.not_taken.dropped_lines() + self.not_written.load(Ordering::Relaxed)
    }
}

/// Counts the lines that can not be written, and goes on.
struct Counted<W> {
    writer: W,
    failures: Arc<AtomicUsize>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.writer.write_all(line).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes each line when told to.
    struct Slow(mpsc::Receiver<io::Result<()>>, mpsc::Sender<()>);

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.1.send(()).expect("the test listens");
            self.0
                .recv()
                .expect("the test goes on")
                .map(|()| line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_nobody_takes_or_the_disk_refuses_is_dropped_and_counted() {
        let (go_on, told) = mpsc::channel();
        let (at_work, working) = mpsc::channel();
        let (mut writer, output) = Output::with_queue(Slow(told, at_work), 2);
        let mut telemetry = Telemetry {
            outputs: vec![output],
            level: Level(reload::Layer::new(EnvFilter::default()).1),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        working.recv().expect("the first line is being written");
        for line in ["second\n", "third\n", "dropped\n", "dropped\n"] {
            writer.write_all(line.as_bytes()).expect("never fails");
        }
        assert_eq!(telemetry.lost_lines(), 2);
        go_on.send(Ok(())).expect("waiting");
        go_on
            .send(Err(io::ErrorKind::StorageFull.into()))
            .expect("waiting");
        go_on.send(Ok(())).expect("waiting");
        telemetry.outputs[0].worker = None;
        assert_eq!(telemetry.lost_lines(), 3);
    }

    #[test]
    fn an_end_does_not_wait_for_who_never_takes_a_line() {
        let (_go_on, told) = mpsc::channel();
        let (at_work, working) = mpsc::channel();
        let (mut writer, output) = Output::with_queue(Slow(told, at_work), 2);
        let telemetry = Telemetry {
            outputs: vec![output],
            level: Level(reload::Layer::new(EnvFilter::default()).1),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        working.recv().expect("the first line is being written");
        telemetry.finish(Duration::from_millis(1));
    }

    #[test]
    fn the_level_can_change_while_it_is_logged() {
        let (filter, handle) = reload::Layer::new(EnvFilter::new("warn"));
        let level = Level(handle);
        tracing::subscriber::with_default(Registry::default().with(filter), || {
            let info = || tracing::enabled!(tracing::Level::INFO);
            assert!(!info());
            level.set("info").expect("a level");
            assert!(info());
            assert!(level.set("haul=loud").is_err());
            assert!(info(), "a level that makes no sense changes nothing");
        });
        assert!(matches!(level.set("info"), Err(TelemetryError::Ended)));
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_anywhere_else() {
        assert!(matches!(
            format_of(LogFormat::Auto, true),
            Format::Text { .. }
        ));
        assert_eq!(format_of(LogFormat::Auto, false), Format::Json);
        assert_eq!(format_of(LogFormat::Json, true), Format::Json);
        assert_eq!(
            format_of(LogFormat::Text, false),
            Format::Text { colour: false }
        );
    }

    #[test]
    fn a_log_file_that_can_not_be_written_is_refused_by_its_setting() {
        let log = Log {
            file: Some("/dev/null/haul.log".into()),
            ..Log::default()
        };
        let message = start(&log).expect_err("no directory").to_string();
        assert!(
            message.starts_with("can not write the log file /dev/null/haul.log: "),
            "{message}"
        );
        assert!(message.ends_with("; check log.file"), "{message}");
    }
}

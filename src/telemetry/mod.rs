//! The log: what it shows, in which shape, and where it goes. Logging never waits: lines that can
//! not be written in time are dropped and counted. Lines of the audit are kept; who is to cause one
//! waits before that, see [`AuditRoom`].
//!
//! Spans are kept as they are entered, so that every line says which session it is about. A filter
//! leaves out the spans below its level with the events: give a span the level `error` to have it
//! on every line.

mod daily_file;
mod line;
mod machine_audit;
mod parsed_line;
mod queue;
mod stderr_log;
mod tail;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config;
use crate::config::{Log, LogFormat};

use crate::telemetry::daily_file::DailyFile;
use crate::telemetry::line::{Format, Lines};
use crate::telemetry::queue::{LineQueue, MAX_WAITING_BYTES, QueueGuard};
pub use crate::telemetry::stderr_log::{log_panics, log_to_stderr, stderr_is_json};

pub use crate::telemetry::machine_audit::MachineAudit;
pub use crate::telemetry::parsed_line::for_people;
pub use crate::telemetry::queue::AuditPermits;
pub use crate::telemetry::tail::{Stretch, Tail, TailLine};

/// The target of events that are logins or change something: those of the audit.
pub const AUDIT: &str = "haul::audit";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The filter has a word that is no level.
    #[error("{} is no level; it is one of error, warn, info, debug and trace", .0.escape_debug())]
    NoLevel(String),
    /// The log file can not be written.
    #[error("can not write the log file {}: {reason}; check {setting}", path.display())]
    File {
        /// The file, without the date.
        path: PathBuf,
        /// What the system says.
        reason: String,
        /// The setting that names it.
        setting: &'static str,
    },
    /// There is no thread to write the log on.
    #[error("cannot start the thread of the log: {0}")]
    Thread(io::Error),
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
    tail: Tail,
    /// Whether the last words are JSON too.
    in_json: bool,
}

/// What is logged, to be changed while it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<ActiveFilter>>,
}

/// What is logged now.
#[derive(Debug)]
struct ActiveFilter {
    level: String,
    change: LevelChange,
}

/// A change of the level, told from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelChange(u64);

impl Level {
    fn new(filter: reload::Handle<EnvFilter, Registry>, level: &str) -> Self {
        let current = ActiveFilter {
            level: level.into(),
            change: LevelChange(0),
        };
        Self {
            filter,
            current: Arc::new(Mutex::new(current)),
        }
    }

    /// Logs what `level` says from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] if it makes no sense, [`TelemetryError::Ended`] once the log has
    /// ended.
    pub fn set(&self, level: &str) -> Result<LevelChange, TelemetryError> {
        self.replace(level, &mut self.lock())
    }

    /// Logs what `level` says from now on, if that was not changed since `change`; whether it does.
    #[must_use]
    pub fn set_unless_changed(&self, level: &str, change: LevelChange) -> bool {
        let mut current = self.lock();
        // It made sense before, or the log has ended.
        current.change == change && self.replace(level, &mut current).is_ok()
    }

    /// Whether `level` makes sense.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] and [`TelemetryError::NoLevel`] if not.
    pub fn check(level: &str) -> Result<(), TelemetryError> {
        filter_of(level).map(drop)
    }

    /// What is logged now, as in the setting.
    #[must_use]
    pub fn current(&self) -> String {
        self.lock().level.clone()
    }

    fn replace(
        &self,
        level: &str,
        current: &mut ActiveFilter,
    ) -> Result<LevelChange, TelemetryError> {
        let replaced = self.filter.reload(filter_of(level)?);
        replaced.map_err(|_| TelemetryError::Ended)?;
        level.clone_into(&mut current.level);
        current.change.0 += 1;
        Ok(current.change)
    }

    fn lock(&self) -> MutexGuard<'_, ActiveFilter> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn filter_of(level: &str) -> Result<EnvFilter, TelemetryError> {
    if !config::is_log_level(level) {
        return Err(TelemetryError::NoLevel(level.into()));
    }
    Ok(EnvFilter::try_new(level)?)
}

/// Starts to log to standard output, and to a file where there is one, until the guard is dropped.
///
/// # Errors
/// [`TelemetryError`], before anything is logged.
pub fn start(log: &Log) -> Result<Telemetry, TelemetryError> {
    let (filter, level) = reload::Layer::new(EnvFilter::try_new(&log.level)?);
    let mut outputs = Vec::new();
    let mut lines = Lines::default();
    let mut add = |format, output: Output| {
        lines.add(format, output.queue.clone());
        outputs.push(output);
    };
    // One place keeps the audit: its own file, else that of the log, else standard output.
    let keeps_audit = log.file.is_none() && log.audit_file.is_none();
    let is_terminal = io::stdout().is_terminal();
    add(
        format_of(log.format, is_terminal),
        Output::new(io::stdout(), keeps_audit)?,
    );
    if let Some(path) = &log.file {
        let file = daily(path, log.keep_files, "log.file")?;
        let output = Output::new(file, log.audit_file.is_none())?;
        add(format_of(log.format, false), output);
    }
    let tail = Tail::default();
    lines.feed(tail.clone());
    let audit = audit(log, &mut outputs)?;
    let registry = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(audit);
    registry.try_init().map_err(|_| TelemetryError::Started)?;
    Ok(Telemetry {
        outputs,
        level: Level::new(level, &log.level),
        tail,
        in_json: stderr_is_json(log.format),
    })
}

/// The layer that writes the audit to its own file, whatever the level, where there is one.
fn audit<S>(log: &Log, outputs: &mut Vec<Output>) -> Result<Option<impl Layer<S>>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(path) = &log.audit_file else {
        return Ok(None);
    };
    let output = Output::new(daily(path, log.keep_audit_files, "log.audit_file")?, true)?;
    let mut lines = Lines::default();
    lines.add(format_of(log.format, false), output.queue.clone());
    outputs.push(output);
    // The spans say whose session it is.
    let wanted = |metadata: &Metadata<'_>| metadata.is_span() || metadata.target() == AUDIT;
    Ok(Some(lines.with_filter(filter_fn(wanted))))
}

fn daily(path: &Path, keep: usize, setting: &'static str) -> Result<DailyFile, TelemetryError> {
    file_of(DailyFile::open(path, keep), path, setting)
}

fn file_of(
    opened: Result<DailyFile, String>,
    path: &Path,
    setting: &'static str,
) -> Result<DailyFile, TelemetryError> {
    opened.map_err(|reason| TelemetryError::File {
        path: path.to_owned(),
        reason,
        setting,
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

    /// The last lines, to be followed.
    #[must_use]
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// Whoever is to cause a line of the audit waits for this.
    ///
    /// # Panics
    /// Never: something keeps the audit.
    #[must_use]
    pub fn audit_room(&self) -> AuditPermits {
        // The last of them keeps it, see `start`.
        let output = self.outputs.last().expect("there is standard output");
        output.queue.audit_room()
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
            // There is no other place left to say so, and none to report a failure to.
            let said = format!("{lost} lines of the log were lost");
            if self.in_json {
                log_to_stderr("lines_lost", &said);
            } else {
                let _ = writeln!(io::stderr(), "haul: {said}");
            }
        }
    }
}

/// Lines that were dropped since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostLines {
    /// All of them: nobody took them in time, or the disk refused them.
    pub lines: usize,
    /// Those of the audit, in the place that keeps it: the disk refused them, or the log had ended.
    pub audit: usize,
}

/// One place that lines go to, through a thread of its own.
#[derive(Debug)]
struct Output {
    queue: LineQueue,
    /// Dropping it writes what waits, within a second.
    guard: Option<QueueGuard>,
}

impl Output {
    fn new(writer: impl Write + Send + 'static, keeps_audit: bool) -> Result<Self, TelemetryError> {
        Self::with_queue(writer, MAX_WAITING_BYTES, keeps_audit)
    }

    fn with_queue(
        writer: impl Write + Send + 'static,
        bytes: usize,
        keeps_audit: bool,
    ) -> Result<Self, TelemetryError> {
        let started = LineQueue::start(writer, bytes, keeps_audit);
        let (queue, guard) = started.map_err(TelemetryError::Thread)?;
        Ok(Self {
            queue,
            guard: Some(guard),
        })
    }
}

/// Counts the lines that can not be written, and goes on.
#[derive(Debug)]
struct Counted<W> {
    writer: W,
    failures: Arc<AtomicUsize>,
    /// The last line was written in part.
    is_torn: bool,
}

impl<W: Write> Counted<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            failures: Arc::default(),
            is_torn: false,
        }
    }

    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// What a full disk has torn off is no part of the next line.
    fn try_write(&mut self, mut line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.writer.write_all(b"\n")?;
            self.is_torn = false;
        }
        while !line.is_empty() {
            match self.writer.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    line = &line[written..];
                    self.is_torn = !line.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.try_write(line).is_err() {
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

    use tracing_subscriber::fmt::MakeWriter as _;

    use super::queue::OVERHEAD;
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
        let line = "second\n".len() + OVERHEAD;
        let output = Output::with_queue(Slow(told, at_work), 3 * line, false).expect("a thread");
        let queue = output.queue.clone();
        let mut writer = queue.make_writer();
        let mut telemetry = Telemetry {
            outputs: vec![output],
            level: Level::new(reload::Layer::new(EnvFilter::default()).1, ""),
            tail: Tail::default(),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        working.recv().expect("the first line is being written");
        for line in ["second\n", "third\n", "dropped\n", "dropped\n"] {
            writer.write_all(line.as_bytes()).expect("never fails");
        }
        assert_eq!(telemetry.lost_lines().lines, 2);
        go_on.send(Ok(())).expect("waiting");
        go_on
            .send(Err(io::ErrorKind::StorageFull.into()))
            .expect("waiting");
        go_on.send(Ok(())).expect("waiting");
        telemetry.outputs[0].guard = None;
        assert_eq!(telemetry.lost_lines().lines, 3);
    }

    #[test]
    fn a_line_that_was_torn_is_no_part_of_the_next() {
        /// A disk with room for so many bytes, which somebody then makes room on.
        struct Small(usize, Vec<u8>);
        impl Write for Small {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = bytes.len().min(self.0);
                if room == 0 {
                    self.0 = 99;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.0 -= room;
                self.1.extend_from_slice(&bytes[..room]);
                Ok(room)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut counted = Counted::new(Small(9, Vec::new()));
        for line in ["first\n", "second\n", "third\n"] {
            counted.write_all(line.as_bytes()).expect("never fails");
        }
        assert_eq!(counted.writer.1, b"first\nsec\nthird\n");
        assert_eq!(counted.failures(), 1);
    }

    #[test]
    fn an_end_does_not_wait_for_who_never_takes_a_line() {
        let (_go_on, told) = mpsc::channel();
        let (at_work, working) = mpsc::channel();
        let output = Output::with_queue(Slow(told, at_work), 999, false).expect("a thread");
        let queue = output.queue.clone();
        let mut writer = queue.make_writer();
        let telemetry = Telemetry {
            outputs: vec![output],
            level: Level::new(reload::Layer::new(EnvFilter::default()).1, ""),
            tail: Tail::default(),
            in_json: false,
        };
        writer.write_all(b"first\n").expect("taken");
        working.recv().expect("the first line is being written");
        telemetry.finish(Duration::from_millis(1));
    }

    #[test]
    fn the_level_can_change_while_it_is_logged() {
        let (filter, handle) = reload::Layer::new(EnvFilter::new("warn"));
        let level = Level::new(handle, "warn");
        let lines = Lines::default().with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            let info = || tracing::enabled!(tracing::Level::INFO);
            assert!(!info());
            let change = level.set("info").expect("a level");
            assert!(info());
            assert_eq!(level.current(), "info");
            assert!(level.set("haul=loud").is_err());
            assert!(info(), "a level that makes no sense changes nothing");
            level.set("debug").expect("a level");
            assert!(!level.set_unless_changed("warn", change));
            assert_eq!(level.current(), "debug", "somebody else wanted that");
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

//! The audit of what is done on the server's machine, by programs that have no log of their own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tracing::{Dispatch, dispatcher};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::Log;
use crate::telemetry::daily_file::DailyFile;
use crate::telemetry::line::Lines;
use crate::telemetry::{Counted, TelemetryError, file_of, format_of};

/// The audit file, where the settings name one. The server may write to it at the same time.
#[derive(Debug)]
pub struct MachineAudit {
    file: Option<AuditFile>,
}

#[derive(Debug)]
struct AuditFile {
    dispatch: Dispatch,
    failures: Arc<AtomicUsize>,
    settings: Log,
}

/// What names the file.
const SETTING: &str = "log.audit_file";

impl MachineAudit {
    /// Opens it, before anything is changed. The server whose data directory is `data` must be able
    /// to write to it, whoever has made it.
    ///
    /// # Errors
    /// [`TelemetryError::File`].
    pub fn open(log: &Log, data: &Path) -> Result<Self, TelemetryError> {
        let Some(path) = &log.audit_file else {
            return Ok(Self { file: None });
        };
        let owners = data.is_dir().then_some(data);
        let file = DailyFile::open_shared(path, log.keep_audit_files, owners);
        let writer = Counted::new(file_of(file, path, SETTING)?);
        let failures = Arc::clone(&writer.failures);
        let mut lines = Lines::default();
        lines.add(format_of(log.format, false), Mutex::new(writer));
        let file = AuditFile {
            dispatch: Dispatch::new(tracing_subscriber::registry().with(lines)),
            failures,
            settings: log.clone(),
        };
        Ok(Self { file: Some(file) })
    }

    /// Writes what `say` logs.
    ///
    /// # Errors
    /// [`TelemetryError::File`] if it could not be written.
    pub fn write(&self, say: impl FnOnce()) -> Result<(), TelemetryError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        dispatcher::with_default(&file.dispatch, say);
        if file.failures.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(TelemetryError::File {
            path: file.settings.audit_file.clone().unwrap_or_default(),
            reason: "what was changed is changed, but no line says so".into(),
            setting: SETTING,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::AUDIT;

    #[test]
    fn each_line_goes_behind_those_of_the_server_whatever_the_level() {
        let place = tempfile::tempdir().expect("a directory");
        let log = Log {
            audit_file: Some(place.path().join("logs/audit.log")),
            format: LogFormat::Json,
            level: "error".into(),
            ..Log::default()
        };
        for cmd in ["first", "second"] {
            let audit = MachineAudit::open(&log, place.path()).expect("opens");
            let say = || tracing::info!(target: AUDIT, cmd, "said");
            audit.write(say).expect("written");
        }
        let mut files = place.path().join("logs").read_dir().expect("readable");
        let file = files.next().expect("one").expect("readable").path();
        let text = std::fs::read_to_string(file).expect("text");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["cmd"], "second");
        assert_eq!(lines[1]["audit"], true);
    }

    #[test]
    fn without_a_file_nothing_is_said() {
        let audit = MachineAudit::open(&Log::default(), Path::new("/")).expect("nothing to open");
        audit.write(|| panic!("nobody hears it")).expect("nothing");
    }
}

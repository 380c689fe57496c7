//! The audit of administrative commands on the server's machine, which have no log of their own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tracing::{Dispatch, dispatcher};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::LogSettings;
use crate::telemetry::counting_writer::CountingWriter;
use crate::telemetry::daily_file::DailyFile;
use crate::telemetry::error::TelemetryError;
use crate::telemetry::format::resolve_format;
use crate::telemetry::line::LineLayer;

/// The audit file, if the settings name one. The server may write to it at the same time.
#[derive(Debug)]
pub struct MachineAudit {
    file: Option<AuditFile>,
}

#[derive(Debug)]
struct AuditFile {
    dispatch: Dispatch,
    failures: Arc<AtomicUsize>,
    settings: LogSettings,
}

/// The setting that names the file.
const AUDIT_FILE_SETTING: &str = "log.audit_file";

impl MachineAudit {
    /// Opens the file, before anything is changed. The server with the data directory `data` can write to
    /// it, even if root has created it.
    ///
    /// # Errors
    /// [`TelemetryError::File`].
    pub fn open(log: &LogSettings, data: &Path) -> Result<Self, TelemetryError> {
        let Some(path) = &log.audit_file else {
            return Ok(Self { file: None });
        };
        let owners = data.is_dir().then_some(data);
        let file = DailyFile::open_shared(path, log.keep_audit_files, owners);
        let file = file.map_err(|reason| TelemetryError::File {
            path: path.clone(),
            reason,
            setting: AUDIT_FILE_SETTING,
        });
        let writer = CountingWriter::new(file?);
        let failures = Arc::clone(&writer.failures);
        let mut lines = LineLayer::default();
        lines.add_output(resolve_format(log.format, false), Mutex::new(writer));
        let file = AuditFile {
            dispatch: Dispatch::new(tracing_subscriber::registry().with(lines)),
            failures,
            settings: log.clone(),
        };
        Ok(Self { file: Some(file) })
    }

    /// Writes the events that `log` logs.
    ///
    /// # Errors
    /// [`TelemetryError::File`] if it could not be written.
    pub fn write(&self, log: impl FnOnce()) -> Result<(), TelemetryError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        dispatcher::with_default(&file.dispatch, log);
        if file.failures.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(TelemetryError::File {
            path: file.settings.audit_file.clone().unwrap_or_default(),
            reason: "the change was made, but is missing in the audit".into(),
            setting: AUDIT_FILE_SETTING,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use crate::telemetry::AUDIT;

    #[test]
    fn lines_are_appended_independent_of_the_level() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = LogSettings {
            audit_file: Some(directory.path().join("logs/audit.log")),
            format: LogFormat::Json,
            level: "error".into(),
            ..LogSettings::default()
        };
        for cmd in ["first", "second"] {
            let audit = MachineAudit::open(&log, directory.path()).expect("opens");
            let log = || tracing::info!(target: AUDIT, cmd, "changed");
            audit.write(log).expect("written");
        }
        let mut files = directory.path().join("logs").read_dir().expect("readable");
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
    fn without_a_file_nothing_is_written() {
        let audit =
            MachineAudit::open(&LogSettings::default(), Path::new("/")).expect("nothing to open");
        audit.write(|| panic!("not called")).expect("nothing");
    }
}

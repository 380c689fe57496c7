//! The log: its content, its formats, and its outputs.
//!
//! Logging never blocks the caller. Each output has a bounded queue and a thread; lines that do not fit
//! are dropped and counted. Audit lines are never dropped at the output that keeps the audit: a request
//! that will cause one first waits for capacity, see [`AuditPermits`].
//!
//! Every line carries the fields of its spans, so it names its session. A filter leaves out spans below
//! its level as well as events: a span with the level `error` is on every line.

mod audit_target;
mod counting_writer;
mod daily_file;
mod error;
mod format;
mod level;
mod line;
mod machine_audit;
mod output;
mod parsed_line;
mod process_log;
mod queue;
mod stderr_log;
mod tail;

pub use crate::telemetry::audit_target::AUDIT;
pub use crate::telemetry::error::TelemetryError;
pub use crate::telemetry::level::{LevelChange, LogLevelHandle};
pub use crate::telemetry::machine_audit::MachineAudit;
pub use crate::telemetry::parsed_line::format_for_people;
pub use crate::telemetry::process_log::{Telemetry, start};
pub use crate::telemetry::queue::{AuditPermits, LostLines};
pub use crate::telemetry::stderr_log::{log_panics, log_to_stderr, stderr_is_json};
pub use crate::telemetry::tail::{Tail, TailLine, TailPage};

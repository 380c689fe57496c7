//! The reports of `haul sync`, for people and for programs.

use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::error_code;
use crate::cli::output::{Output, count, print, print_json, safe, size};
use crate::cli::progress::Bar;
use crate::cli::report::error_text;
use crate::client::sync::{
    MetadataChange, SyncAction, SyncDirection, SyncOutcome, SyncSummary, TransferReason,
};

/// How a sync is reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyncReport {
    pub(super) output: Output,
    pub(super) direction: SyncDirection,
    pub(super) itemize: bool,
    pub(super) dry_run: bool,
}

/// An action as programs read it.
#[derive(Debug, Serialize)]
struct ActionLine<'a> {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Of a failure, as in other error objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A path that is not as it should be.
struct Failure<'a> {
    /// Absent if it is about several.
    path: Option<&'a str>,
    code: Option<String>,
    reason: String,
}

/// The totals as programs read them.
#[derive(Debug, Serialize)]
struct SummaryLine {
    action: &'static str,
    dry_run: bool,
    transferred: u64,
    transferred_bytes: u64,
    delta_saved_bytes: u64,
    renamed: u64,
    unchanged: u64,
    saved_bytes: u64,
    directories: u64,
    metadata: u64,
    deleted: u64,
    skipped: u64,
    failed: u64,
    seconds: f64,
}

impl SyncReport {
    /// Prints what happened to one path, as far as it is wanted.
    pub(super) fn event(self, bar: &Bar, event: SyncOutcome) -> anyhow::Result<()> {
        match event {
            SyncOutcome::Done(action) => self.action(bar, &action)?,
            SyncOutcome::Failed { path, error } => {
                let error = error.into();
                let failure = Failure {
                    path: Some(&path),
                    code: Some(error_code(&error).into_owned()),
                    reason: error.to_string(),
                };
                let text = error_text(self.output, &format!("sync: {path}"), &error);
                self.failure(bar, failure, &text)?;
            }
            SyncOutcome::DeletionsLeftOut { count, reason } => {
                let entries = if count == 1 { "entry" } else { "entries" };
                let reason = format!("{count} {entries} not deleted: {reason}");
                let text = safe(&format!("haul: sync: {reason}")).into_owned();
                let failure = Failure {
                    path: None,
                    code: None,
                    reason,
                };
                self.failure(bar, failure, &text)?;
            }
        }
        Ok(())
    }

    /// Prints a failure as one object, or as the lines `text`.
    fn failure(self, bar: &Bar, failure: Failure<'_>, text: &str) -> anyhow::Result<()> {
        if !self.output.is_json() {
            bar.print_lines(text);
            return Ok(());
        }
        let line = ActionLine {
            action: "failed",
            path: failure.path,
            from: None,
            size: None,
            code: failure.code,
            reason: Some(failure.reason),
        };
        bar.beside(|| print_json(&line))?;
        Ok(())
    }

    fn action(self, bar: &Bar, action: &SyncAction) -> anyhow::Result<()> {
        if let SyncAction::Skip { path, reason } = action {
            if reason.is_failure() {
                let text = format!("haul: sync: {path}: {reason}");
                let failure = Failure {
                    path: Some(path),
                    code: None,
                    reason: reason.to_string(),
                };
                return self.failure(bar, failure, &safe(&text));
            }
            if !reason.is_requested() && !self.output.is_json() {
                if !self.output.is_quiet() {
                    bar.print(&format!("haul: sync: {path}: skipped: {reason}"));
                }
                return Ok(());
            }
        }
        let Some(line) = self.line(action) else {
            return Ok(());
        };
        if self.output.is_json() {
            bar.beside(|| print_json(&line))?;
        } else if self.itemize || self.dry_run {
            bar.beside(|| print(&safe(&text(&line))))?;
        }
        Ok(())
    }

    fn line(self, action: &SyncAction) -> Option<ActionLine<'_>> {
        let (name, from, size, reason) = match action {
            SyncAction::MakeDirectory(_) => ("make directory", None, None, None),
            SyncAction::Transfer { entry, reason, .. } => {
                let name = match self.direction {
                    SyncDirection::Up => "send",
                    SyncDirection::Down => "receive",
                };
                (name, None, Some(entry.size), Some(difference(*reason)))
            }
            SyncAction::SetMetadata { change, .. } => ("set", None, None, Some(changed(*change))),
            SyncAction::Move { from, entry } => ("move", Some(&**from), Some(entry.size), None),
            SyncAction::Copy { from, entry } => ("copy", Some(&**from), Some(entry.size), None),
            SyncAction::Delete(_) => ("delete", None, None, None),
            SyncAction::Skip { reason, .. } => ("skip", None, None, Some(reason.to_string())),
            _ => return None,
        };
        Some(ActionLine {
            action: name,
            path: Some(action.path()),
            from,
            size,
            code: None,
            reason,
        })
    }

    /// Prints the totals.
    pub(super) fn summary(self, summary: &SyncSummary, elapsed: Duration) -> anyhow::Result<()> {
        if self.output.is_json() {
            print_json(&SummaryLine {
                action: "summary",
                dry_run: self.dry_run,
                transferred: summary.transferred,
                transferred_bytes: summary.sent_bytes(),
                delta_saved_bytes: summary.delta_saved_bytes,
                renamed: summary.renamed,
                unchanged: summary.unchanged,
                saved_bytes: summary.saved_bytes(),
                directories: summary.directories,
                metadata: summary.metadata,
                deleted: summary.deleted,
                skipped: summary.skipped,
                failed: summary.failed,
                seconds: elapsed.as_secs_f64(),
            })?;
        } else {
            self.output.note(&self.totals(summary, elapsed));
        }
        Ok(())
    }

    fn totals(self, summary: &SyncSummary, elapsed: Duration) -> String {
        let verb = match (self.direction, self.dry_run) {
            (_, true) => "to transfer",
            (SyncDirection::Up, _) => "sent",
            (SyncDirection::Down, _) => "received",
        };
        let mut text = format!(
            "{} {verb} ({})",
            count(summary.transferred, "file"),
            size(summary.sent_bytes()),
        );
        for (number, what) in [
            (summary.renamed, "renamed or copied"),
            (summary.deleted, "deleted"),
            (summary.metadata, "with new times or modes"),
            (summary.unchanged, "unchanged"),
            (summary.skipped, "skipped"),
            (summary.failed, "failed"),
        ] {
            if number > 0 {
                text.extend([", ", &number.to_string(), " ", what]);
            }
        }
        let saved = size(summary.saved_bytes());
        let seconds = elapsed.as_secs_f64();
        format!("{text}; {saved} saved, {seconds:.1} s")
    }
}

/// The line of an action for a person.
fn text(line: &ActionLine<'_>) -> String {
    let ActionLine {
        action,
        path,
        from,
        reason,
        ..
    } = line;
    let path = path.unwrap_or_default();
    let mut text = match from {
        Some(from) => format!("{action} {from} to {path}"),
        None => format!("{action} {path}"),
    };
    if let Some(reason) = reason {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}

fn difference(reason: TransferReason) -> String {
    let text = match reason {
        TransferReason::New => "new",
        TransferReason::Size => "another size",
        TransferReason::Time => "another time",
        TransferReason::Content => "other content",
        TransferReason::Kind => "in place of a directory",
    };
    text.to_owned()
}

fn changed(change: MetadataChange) -> String {
    let text = match (change.modified, change.mode) {
        (true, true) => "time and mode",
        (false, true) => "mode",
        _ => "time",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_name_only_what_there_is() {
        let report = SyncReport {
            output: Output::new(false, true, true),
            direction: SyncDirection::Up,
            itemize: false,
            dry_run: false,
        };
        let mut summary = SyncSummary {
            transferred: 1,
            transferred_bytes: 2048,
            ..SyncSummary::default()
        };
        let elapsed = Duration::from_millis(1500);
        assert_eq!(
            report.totals(&summary, elapsed),
            "1 file sent (2.0 KiB); 0 B saved, 1.5 s"
        );
        summary.unchanged = 3;
        summary.unchanged_bytes = 1024;
        summary.failed = 1;
        assert_eq!(
            report.totals(&summary, elapsed),
            "1 file sent (2.0 KiB), 3 unchanged, 1 failed; 1.0 KiB saved, 1.5 s"
        );
    }
}

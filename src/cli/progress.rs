//! The progress bar: bytes, rate, time left and files done, on standard error.

use std::io::{Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use tokio::time::{Instant, interval_at};

use super::output::{Output, count, safe};
use crate::client::Progress;

/// How often the counters are looked at.
const REFRESH: Duration = Duration::from_millis(100);

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar that shows the counters of one job; nothing where nobody would see it.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    bar: ProgressBar,
    progress: Progress,
}

impl Bar {
    pub(super) fn new(output: Output, progress: &Progress) -> Self {
        let bar = if output.progress {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar: bar
                .with_style(style(OPEN_END))
                .with_finish(ProgressFinish::AndClear),
            progress: progress.clone(),
        }
    }

    /// Shows how far `work` is until it is done. The bar goes away with it.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let _clear = Clear(&self.bar);
        let mut work = std::pin::pin!(work);
        let mut ticks = interval_at(Instant::now() + PATIENCE, REFRESH);
        let mut closed_end = false;
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                _ = ticks.tick() => {}
            }
            if !closed_end && self.progress.totals_are_final() && self.progress.total_bytes() > 0 {
                closed_end = true;
                self.bar.set_style(style(CLOSED_END));
            }
            self.look();
        }
    }

    fn look(&self) {
        let progress = &self.progress;
        let (done, known) = (progress.files(), progress.total_files());
        if progress.totals_are_final() {
            // What turns out longer than it was said to be must not run past its end.
            self.bar
                .set_length(progress.total_bytes().max(progress.bytes()));
        }
        self.bar.set_position(progress.bytes());
        self.bar.set_message(match known {
            0 => "looking".to_owned(),
            1 => String::new(),
            _ if progress.totals_are_final() => format!("{done} of {}", count(known, "file")),
            _ => format!("{done} of {known}+ files"),
        });
    }

    /// Prints a line on standard error, above the bar.
    pub(super) fn print(&self, line: &str) {
        // Where nobody can read it, the exit code still tells.
        self.bar.suspend(|| {
            let _ = writeln!(stderr(), "{}", safe(line));
        });
    }
}

/// Takes the bar away, whether the work ended or was dropped.
struct Clear<'a>(&'a ProgressBar);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const OPEN_END: &str = "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg}";
const CLOSED_END: &str = "{wide_bar} {percent:>3}% {binary_bytes} of {binary_total_bytes} \
    {binary_bytes_per_sec} {eta} left {msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are sound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [OPEN_END, CLOSED_END] {
            style(template);
        }
    }
}

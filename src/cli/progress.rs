//! The progress bar: bytes, rate, time left and files done, on standard error; and what a job waits
//! for.

use std::io::{Write, stderr, stdout};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use rustix::fs::FileType;
use tokio::time::{Duration, Instant, interval_at};

use crate::cli::output::{Output, count, safe, size};
use crate::cli::recent_rate::RecentRate;
use crate::cli::remote_path::last_name;
use crate::client::{Progress, Waiting};

/// How often the counters are looked at.
const REFRESH: Duration = Duration::from_millis(100);

/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar that shows the counters of one job; nothing where nobody would see it, except a line when
/// the job has to wait.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    drawn: ProgressBar,
    progress: Progress,
    output: Output,
}

impl Bar {
    pub(super) fn new(output: Output, progress: &Progress) -> Self {
        let bar = if output.progress && !stdout_is_pipe() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        } else {
            ProgressBar::hidden()
        };
        Self {
            drawn: bar
                .with_style(style(OPEN_END))
                .with_finish(ProgressFinish::AndClear),
            progress: progress.clone(),
            output,
        }
    }

    /// Shows how far `work` is until it is done. The bar goes away with it.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let _clear = Clear(&self.drawn);
        let mut work = std::pin::pin!(work);
        let mut ticks = interval_at(Instant::now() + PATIENCE, REFRESH);
        let mut waiting = self.progress.waiting();
        let mut shown = OPEN_END;
        let mut rate = RecentRate::default();
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome,
                Ok(()) = waiting.changed() => self.say(waiting.borrow_and_update().as_ref()),
                _ = ticks.tick() => {}
            }
            let is_waiting = waiting.borrow().is_some();
            let template = match total(&self.progress) {
                Some(_) if is_waiting => CLOSED_END_WAITING,
                Some(_) => CLOSED_END,
                None if is_waiting => OPEN_END_WAITING,
                None => OPEN_END,
            };
            if template != shown {
                shown = template;
                self.drawn.set_style(style(template));
            }
            self.look(waiting.borrow().as_ref(), &mut rate);
        }
    }

    /// Where no bar can tell what the job waits for, a line does.
    fn say(&self, waiting: Option<&Waiting>) {
        if let Some(waiting) = waiting
            && self.drawn.is_hidden()
        {
            self.output.note(&held_up(&self.progress, waiting));
        }
    }

    fn look(&self, waiting: Option<&Waiting>, rate: &mut RecentRate) {
        let progress = &self.progress;
        let (done, known) = (progress.files(), progress.total_files());
        if progress.totals_are_final() {
            // A file that is longer than declared must not run past its end.
            self.drawn
                .set_length(progress.total_bytes().max(progress.bytes()));
        }
        self.drawn.set_position(progress.bytes());
        if let Some(waiting) = waiting {
            let text = next_attempt(waiting);
            self.drawn.set_message(safe(&text).into_owned());
            // The wait says nothing about the rate after it.
            *rate = RecentRate::default();
            return;
        }
        let files = match known {
            0 => "searching".to_owned(),
            1 => String::new(),
            _ if progress.totals_are_final() => format!("{done} of {}", count(known, "file")),
            _ => format!("{done} of {known}+ files"),
        };
        rate.add(Instant::now(), progress.sent_bytes());
        let rate = rate.bytes_per_second();
        let mut parts = Vec::new();
        if let Some(rate) = rate {
            parts.push(format!("{}/s", size(rate)));
        }
        if let (Some(total), Some(rate @ 1..)) = (total(progress), rate) {
            let left = total.saturating_sub(progress.bytes()).div_ceil(rate);
            parts.push(format!("{} left", duration(left)));
        }
        parts.extend((!files.is_empty()).then_some(files));
        if let saved @ 1.. = progress.saved_bytes() {
            parts.push(format!("{} saved", size(saved)));
        }
        if let Some(name) = progress.current_file() {
            parts.push(shortened(last_name(&name).unwrap_or(&name)));
        }
        self.drawn.set_message(safe(&parts.join(", ")).into_owned());
    }

    /// Prints a line on standard error, above the bar.
    pub(super) fn print(&self, line: &str) {
        self.print_lines(&safe(line));
    }

    /// Prints lines that are harmless to the terminal on standard error, above the bar.
    pub(super) fn print_lines(&self, lines: &str) {
        // If standard error has no reader, the exit code still reports a failure.
        self.beside(|| {
            let _ = writeln!(stderr(), "{lines}");
        });
    }

    /// Removes the bar while `print` writes to the terminal.
    pub(super) fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.drawn.suspend(print)
    }
}

/// How far a job is, as one line, for places where no bar can move: a bar, the rate, the time that is left,
/// and a name.
pub(super) fn progress_line(progress: &Progress, rate: &RecentRate, name: &str) -> String {
    const CELLS: usize = 20;
    let total = total(progress);
    let mut parts = Vec::new();
    if let Some(total) = total {
        let share = |of: u64| u128::from(progress.bytes()) * u128::from(of) / u128::from(total);
        let full = usize::try_from(share(CELLS as u64)).unwrap_or(0);
        let rest = CELLS.saturating_sub(full);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(rest));
        parts.push(format!("{bar} {} %", share(100)));
    } else {
        parts.push(size(progress.bytes()));
    }
    if let Some(rate) = rate.bytes_per_second() {
        parts.push(format!("{}/s", size(rate)));
        if let (Some(total), 1..) = (total, rate) {
            let left = total.saturating_sub(progress.bytes()).div_ceil(rate);
            parts.push(format!("{} left", duration(left)));
        }
    }
    parts.push(shortened(name));
    parts.join(", ")
}

/// Whether another program reads standard output. It may write to the same terminal at any time, so
/// no bar is drawn there.
fn stdout_is_pipe() -> bool {
    rustix::fs::fstat(stdout()).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        matches!(kind, FileType::Fifo | FileType::Socket)
    })
}

/// Removes the bar, whether the work ended or was dropped.
struct Clear<'a>(&'a ProgressBar);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// All bytes that there are to move, once that is known.
fn total(progress: &Progress) -> Option<u64> {
    let total = progress.total_bytes().max(progress.bytes());
    (progress.totals_are_final() && total > 0).then_some(total)
}

/// Why the job stands still, and until when.
fn held_up(progress: &Progress, waiting: &Waiting) -> String {
    let place = match total(progress) {
        Some(total) => format!(
            "at {} %",
            u128::from(progress.bytes()) * 100 / u128::from(total)
        ),
        None => format!("after {}", size(progress.bytes())),
    };
    let Waiting {
        why,
        attempt,
        attempts,
        ..
    } = waiting;
    let (what, again) = (what_happened(waiting), again(waiting));
    format!("{what} {place} ({why}); {again}, attempt {attempt} of {attempts}")
}

/// The same beside a bar, which has the place; what does not fit the terminal is cut off, so what
/// changes comes first.
fn next_attempt(waiting: &Waiting) -> String {
    let Waiting {
        why,
        attempt,
        attempts,
        ..
    } = waiting;
    let (what, again) = (what_happened(waiting), again(waiting));
    format!("{again} ({attempt} of {attempts}); {what}: {why}")
}

fn what_happened(waiting: &Waiting) -> &'static str {
    if waiting.connection_lost {
        "connection lost"
    } else {
        "waiting"
    }
}

fn again(waiting: &Waiting) -> String {
    let left = waiting.until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        "trying again".to_owned()
    } else {
        // Nobody waits for 0 s.
        format!("trying again in {} s", left.as_millis().div_ceil(1000))
    }
}

/// A time for people, such as `5 s`, `3 min` or `2 h 5 min`.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds.div_ceil(60)) {
        (_, 0 | 1) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, _) => format!("{hours} h {} min", seconds % 3600 / 60),
    }
}

/// A name without its middle, if it is long.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= MAX_NAME_CHARACTERS {
        return name.to_owned();
    }
    let (start, end) = (MAX_NAME_CHARACTERS / 2, MAX_NAME_CHARACTERS / 2 - 1);
    let head = name.chars().take(start);
    let tail = name.chars().skip(length - end);
    head.chain(std::iter::once('…')).chain(tail).collect()
}

/// The longest name of a file beside the bar.
const MAX_NAME_CHARACTERS: usize = 24;

const OPEN_END: &str = "{spinner} {binary_bytes} {wide_msg}";
const CLOSED_END: &str = "{bar:20} {percent:>3}% {binary_bytes} of {binary_total_bytes} {wide_msg}";

const OPEN_END_WAITING: &str = "{spinner} {binary_bytes} {wide_msg}";
const CLOSED_END_WAITING: &str = "{bar:10} {percent:>3}% {wide_msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are sound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn beside_a_bar_what_changes_comes_before_what_may_be_cut_off() {
        let waiting = Waiting {
            why: "the server closed the connection".into(),
            connection_lost: true,
            attempt: 3,
            attempts: 10,
            until: Instant::now() + Duration::from_millis(3100),
        };
        assert_eq!(
            next_attempt(&waiting),
            "trying again in 4 s (3 of 10); connection lost: the server closed the connection"
        );
    }

    #[test]
    fn times_and_long_names_are_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "2 min"),
            (3599, "60 min"),
            (7500, "2 h 5 min"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(shortened("holiday.tar"), "holiday.tar");
        assert_eq!(shortened(&"ab".repeat(20)), "abababababab…bababababab");
    }

    #[test]
    fn the_templates_are_sound() {
        for template in [OPEN_END, CLOSED_END, OPEN_END_WAITING, CLOSED_END_WAITING] {
            style(template);
        }
    }
}

//! The queue of an output that may be slow, such as a disk or a pipe: a thread writes the lines, and the
//! queue is bounded in bytes.
//!
//! Logging an ordinary line never waits. Lines that do not fit are dropped and counted. Audit lines are
//! never dropped at the output that keeps the audit: a request that will cause one first waits for
//! [`AuditPermits`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use crate::telemetry::audit_target::AUDIT;
use crate::telemetry::counting_writer::CountingWriter;

/// The most bytes of queued ordinary lines.
pub(super) const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Once more bytes of audit lines are queued, audited requests wait.
const MAX_AUDIT_BYTES: usize = 4 * 1024 * 1024;

/// The memory of a queued line without its text.
pub(super) const LINE_OVERHEAD_BYTES: usize = 64;

/// Bytes of lines that are written with one system call.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// How long the first line of a batch waits for others. A busy server logs many lines a millisecond, and to
/// wake the thread for each costs more than to write them.
const GATHER_TIME: Duration = Duration::from_millis(1);

/// The longest wait for the queued lines at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines that were dropped since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostLines {
    /// All of them: the output was too slow, or writing failed.
    pub lines: usize,
    /// Audit lines among them, at the output that keeps the audit: writing failed, or the log had
    /// ended.
    pub audit: usize,
}

/// The queued lines of one output. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LineQueue(Arc<LineQueueShared>);

#[derive(Debug)]
struct LineQueueShared {
    state: Mutex<LineQueueState>,
    /// The most bytes of queued ordinary lines.
    max_bytes: usize,
    keeps_audit: bool,
    /// A line was added, or the queue was closed.
    line_available: Condvar,
    /// The thread has ended.
    ended: Condvar,
    /// There is capacity for audit lines again.
    audit_capacity: Notify,
}

#[derive(Debug, Default)]
struct LineQueueState {
    lines: VecDeque<QueuedLine>,
    /// Bytes of ordinary lines that are not written yet.
    bytes: usize,
    /// Bytes of audit lines that are not written yet.
    audit_bytes: usize,
    lost: LostLines,
    is_closed: bool,
    has_ended: bool,
}

#[derive(Debug)]
struct QueuedLine {
    text: Box<[u8]>,
    is_kept: bool,
}

impl QueuedLine {
    fn cost(&self) -> usize {
        self.text.len() + LINE_OVERHEAD_BYTES
    }
}

impl LostLines {
    fn add(&mut self, line: &QueuedLine, times: usize) {
        self.lines += times;
        self.audit += if line.is_kept { times } else { 0 };
    }
}

/// Dropping it closes the queue and waits until the queued lines are written, for a bounded time.
#[derive(Debug)]
pub(super) struct QueueGuard(Arc<LineQueueShared>);

impl LineQueue {
    /// Starts a thread that writes the lines to `writer`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(
        writer: impl Write + Send + 'static,
        max_bytes: usize,
        keeps_audit: bool,
    ) -> io::Result<(Self, QueueGuard)> {
        let shared = Arc::new(LineQueueShared {
            state: Mutex::default(),
            max_bytes,
            keeps_audit,
            line_available: Condvar::new(),
            ended: Condvar::new(),
            audit_capacity: Notify::new(),
        });
        let queue = Arc::clone(&shared);
        let mut writer = CountingWriter::new(writer);
        let write = move || {
            queue.write_all(&mut writer);
            queue.lock().has_ended = true;
            queue.ended.notify_all();
        };
        thread::Builder::new().name("log".into()).spawn(write)?;
        Ok((Self(Arc::clone(&shared)), QueueGuard(shared)))
    }

    /// Lines that were dropped since the start.
    pub(super) fn lost(&self) -> LostLines {
        self.0.lock().lost
    }

    /// The handle on which audited requests wait for capacity.
    pub(super) fn audit_permits(&self) -> AuditPermits {
        AuditPermits(Arc::clone(&self.0))
    }
}

impl LineQueueShared {
    fn lock(&self) -> MutexGuard<'_, LineQueueState> {
        self.state.lock()
    }

    fn push(&self, line: QueuedLine) {
        let mut state = self.lock();
        let cost = line.cost();
        if state.is_closed || !line.is_kept && state.bytes + cost > self.max_bytes {
            state.lost.add(&line, 1);
            return;
        }
        if line.is_kept {
            state.audit_bytes += cost;
        } else {
            state.bytes += cost;
        }
        state.lines.push_back(line);
        drop(state);
        self.line_available.notify_one();
    }

    /// Writes lines until the queue is closed and empty.
    fn write_all(&self, writer: &mut CountingWriter<impl Write>) {
        while let Some(batch) = self.next_batch() {
            let lost = writer.write_lines(batch.iter().map(|line| &*line.text));
            let _ = writer.flush();
            let mut state = self.lock();
            for (line, is_lost) in batch.iter().zip(lost) {
                state.lost.add(line, usize::from(is_lost));
                if line.is_kept {
                    state.audit_bytes -= line.cost();
                } else {
                    state.bytes -= line.cost();
                }
            }
            if state.audit_bytes < MAX_AUDIT_BYTES {
                self.audit_capacity.notify_waiters();
            }
        }
    }

    /// Waits for lines, and takes a bounded part of them; `None` once the queue is closed and empty.
    fn next_batch(&self) -> Option<Vec<QueuedLine>> {
        let mut state = self.lock();
        while state.lines.is_empty() {
            if state.is_closed {
                return None;
            }
            self.line_available.wait(&mut state);
            if !state.is_closed {
                MutexGuard::unlocked(&mut state, || thread::sleep(GATHER_TIME));
            }
        }
        let mut bytes = 0;
        let mut batch = Vec::new();
        while let Some(line) = state.lines.front()
            && (batch.is_empty() || bytes + line.text.len() <= MAX_BATCH_BYTES)
        {
            bytes += line.text.len();
            batch.extend(state.lines.pop_front());
        }
        Some(batch)
    }
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        self.0.line_available.notify_one();
        self.0.audit_capacity.notify_waiters();
        self.0
            .ended
            .wait_while_for(&mut state, |state| !state.has_ended, FLUSH_TIMEOUT);
    }
}

/// The capacity of the output that keeps the audit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditPermits(Arc<LineQueueShared>);

impl AuditPermits {
    /// Waits until the queue has capacity for audit lines, or the log has ended.
    pub async fn wait(&self) {
        loop {
            let mut capacity = pin!(self.0.audit_capacity.notified());
            capacity.as_mut().enable();
            {
                let state = self.0.lock();
                if state.audit_bytes < MAX_AUDIT_BYTES || state.is_closed {
                    return;
                }
            }
            capacity.await;
        }
    }
}

/// Adds one line to the queue.
#[derive(Debug)]
pub(super) struct QueueWriter<'a> {
    queue: &'a LineQueueShared,
    is_kept: bool,
}

impl Write for QueueWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(QueuedLine {
            text: line.into(),
            is_kept: self.is_kept,
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = QueueWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        QueueWriter {
            queue: &self.0,
            is_kept: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        QueueWriter {
            queue: &self.0,
            is_kept: self.0.keeps_audit && metadata.target() == AUDIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;

    use super::*;

    /// Blocks until the sender is dropped.
    struct StuckWriter(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for StuckWriter {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn push(queue: &LineQueue, length: usize, is_kept: bool) {
        let text = vec![b'x'; length].into();
        queue.0.push(QueuedLine { text, is_kept });
    }

    #[test]
    fn queued_lines_are_bounded_in_bytes() {
        let (resume, stuck) = mpsc::channel();
        let (queue, guard) =
            LineQueue::start(StuckWriter(stuck, Arc::default()), 10_000, false).expect("a thread");
        for _ in 0..100 {
            push(&queue, 1000 - LINE_OVERHEAD_BYTES, false);
        }
        assert_eq!(
            queue.lost(),
            LostLines {
                lines: 90,
                audit: 0
            }
        );
        assert_eq!(queue.0.lock().bytes, 10_000);
        drop(resume);
        drop(guard);
        assert_eq!(queue.0.lock().bytes, 0);
    }

    #[tokio::test]
    async fn no_audit_line_is_dropped_and_the_cause_of_the_next_one_waits() {
        let (resume, stuck) = mpsc::channel();
        let written = Arc::default();
        let stuck = StuckWriter(stuck, Arc::clone(&written));
        let (queue, guard) = LineQueue::start(stuck, 10_000, true).expect("a thread");
        let permits = queue.audit_permits();
        permits.wait().now_or_never().expect("there is capacity");
        let lines = MAX_AUDIT_BYTES / 1000 + 1;
        for _ in 0..lines {
            push(&queue, 1000 - LINE_OVERHEAD_BYTES, true);
        }
        let mut waiting = Box::pin(permits.wait());
        assert!(waiting.as_mut().now_or_never().is_none());
        push(&queue, 1000 - LINE_OVERHEAD_BYTES, true);
        assert_eq!(
            queue.lost(),
            LostLines::default(),
            "requests that have started may log"
        );
        drop(resume);
        waiting.await;
        drop(guard);
        let written = written.lock().len();
        assert_eq!(written, (lines + 1) * (1000 - LINE_OVERHEAD_BYTES));
    }

    #[tokio::test]
    async fn the_wait_for_audit_capacity_ends_with_the_log() {
        let (resume, stuck) = mpsc::channel::<()>();
        let (queue, guard) =
            LineQueue::start(StuckWriter(stuck, Arc::default()), 10_000, true).expect("a thread");
        push(&queue, MAX_AUDIT_BYTES, true);
        let permits = queue.audit_permits();
        let mut waiting = Box::pin(permits.wait());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(resume);
        drop(guard);
        waiting.await;
    }
}

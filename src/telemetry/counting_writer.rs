//! A writer that counts failures.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writes lines, and counts those that fail instead of returning an error.
#[derive(Debug)]
pub(super) struct CountingWriter<W> {
    writer: W,
    pub(super) failures: Arc<AtomicUsize>,
    /// The last line was written partially.
    is_torn: bool,
}

impl<W: Write> CountingWriter<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer,
            failures: Arc::default(),
            is_torn: false,
        }
    }

    #[cfg(test)]
    fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes lines together. Returns for each whether it is lost.
    pub(super) fn write_lines<'a>(
        &mut self,
        lines: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Vec<bool> {
        let mut lost = vec![false; lines.len()];
        let all = lines.clone().collect::<Vec<_>>().concat();
        let mut written = self.try_write(&all);
        if written == all.len() {
            return lost;
        }
        // One of them failed: the others are written each for itself.
        let mut is_retry = false;
        for (line, is_lost) in lines.zip(&mut lost) {
            if written >= line.len() {
                written -= line.len();
                continue;
            }
            *is_lost = !is_retry || self.try_write(line) < line.len();
            if *is_lost {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            (written, is_retry) = (0, true);
        }
        lost
    }

    /// Writes whole lines; ends a partial line before them. Returns the bytes that were written of them.
    fn try_write(&mut self, lines: &[u8]) -> usize {
        if self.is_torn {
            if self.writer.write_all(b"\n").is_err() {
                return 0;
            }
            self.is_torn = false;
        }
        let mut written = 0;
        while written < lines.len() {
            match self.writer.write(&lines[written..]) {
                Ok(0) => break,
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let is_partial = 0 < written && written < lines.len();
        self.is_torn = is_partial && lines[written - 1] != b'\n';
        written
    }
}

impl<W: Write> Write for CountingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line)?;
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.try_write(line) < line.len() {
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
    use super::*;

    #[test]
    fn a_partial_line_is_ended_before_the_next_line() {
        /// A disk with a number of free bytes, and more of them after the first failure.
        struct SmallDisk(usize, Vec<u8>);
        impl Write for SmallDisk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let written = bytes.len().min(self.0);
                if written == 0 {
                    self.0 = 99;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.0 -= written;
                self.1.extend_from_slice(&bytes[..written]);
                Ok(written)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = ["first\n", "second\n", "third\n", "fourth\n"];
        let lines = lines.map(str::as_bytes);
        let written = b"first\nsec\nthird\nfourth\n";
        let mut counted = CountingWriter::new(SmallDisk(9, Vec::new()));
        for line in lines {
            counted.write_all(line).expect("never fails");
        }
        assert_eq!(counted.writer.1, written);
        assert_eq!(counted.failures(), 1);
        let mut counted = CountingWriter::new(SmallDisk(9, Vec::new()));
        let lost = counted.write_lines(lines.into_iter());
        assert_eq!(lost, [false, true, false, false]);
        assert_eq!(counted.writer.1, written);
        assert_eq!(counted.failures(), 1);
        let mut counted = CountingWriter::new(SmallDisk(6, Vec::new()));
        let lost = counted.write_lines(lines.into_iter());
        assert_eq!(lost, [false, true, false, false], "between two lines");
        assert_eq!(counted.writer.1, b"first\nthird\nfourth\n");
    }
}

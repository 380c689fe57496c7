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

    pub(super) fn failures(&self) -> usize {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes a line; ends a partial line before it.
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

impl<W: Write> Write for CountingWriter<W> {
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
        let mut counted = CountingWriter::new(SmallDisk(9, Vec::new()));
        for line in ["first\n", "second\n", "third\n"] {
            counted.write_all(line.as_bytes()).expect("never fails");
        }
        assert_eq!(counted.writer.1, b"first\nsec\nthird\n");
        assert_eq!(counted.failures(), 1);
    }
}

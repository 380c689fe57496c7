//! A new version of a file, written in a part file beside the old one.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::ClientError;
use crate::client::transfer::sink::LocalSink;
use crate::client::transfer::source::LocalFile;
use crate::connection::LONG_CHUNK_BYTES;
use crate::protocol::{Algorithm, Digest, Hasher, IfExists};

/// Bytes of the new file.
pub(super) enum AssemblyPart {
    /// They are in the old version.
    Local(Range<u64>),
    Received(Bytes),
}

/// A file that is put together. Its methods block on the disk.
pub(super) struct Assembly {
    old: LocalFile,
    sink: LocalSink,
    hasher: Hasher,
    length: u64,
}

impl Assembly {
    /// Begins the file, or continues what an interrupted download of this version has left.
    pub(super) fn open(
        old: LocalFile,
        version: &str,
        size: u64,
        algorithm: Algorithm,
    ) -> Result<Self, ClientError> {
        let mut sink = LocalSink::create(old.path(), IfExists::Replace)?;
        let (hasher, length) = match sink.resume(algorithm)? {
            Some((of, hasher, length)) if of == version && length <= size => (hasher, length),
            Some(_) => {
                sink.restart()?;
                (Hasher::new(algorithm), 0)
            }
            None => (Hasher::new(algorithm), 0),
        };
        sink.begin(version, size)?;
        Ok(Self {
            old,
            sink,
            hasher,
            length,
        })
    }

    /// Bytes that need not be added.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Adds all parts, and returns the file with its digest. If the old version was written to meanwhile,
    /// nothing of the file can be trusted, and it is removed.
    pub(super) fn add_all(
        mut self,
        mut parts: mpsc::Receiver<AssemblyPart>,
    ) -> Result<(LocalSink, Digest), ClientError> {
        let mut added = Ok(());
        while added.is_ok()
            && let Some(part) = parts.blocking_recv()
        {
            added = self.add(part);
        }
        match added.and_then(|()| self.old.check_unchanged()) {
            Ok(()) => Ok((self.sink, self.hasher.finish())),
            Err(error) => {
                if matches!(error, ClientError::LocalChanged(_)) {
                    self.sink.discard();
                }
                Err(error)
            }
        }
    }

    fn add(&mut self, part: AssemblyPart) -> Result<(), ClientError> {
        let mut rest = match part {
            AssemblyPart::Received(bytes) => return self.write(&bytes),
            AssemblyPart::Local(range) => range,
        };
        self.old.go_to(rest.start)?;
        while !rest.is_empty() {
            let limit = usize::try_from(rest.end - rest.start).unwrap_or(usize::MAX);
            let Some(bytes) = self.old.next_part(limit.min(LONG_CHUNK_BYTES))? else {
                return Err(ClientError::LocalChanged(self.old.path().into()));
            };
            self.write(&bytes)?;
            rest.start += bytes.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.sink.write(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use tempfile::TempDir;

    use super::*;

    const SIZE: u64 = 2 * 1024 * 1024;

    /// An old version of `SIZE` bytes.
    fn old_file() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, vec![b'o'; 2 * 1024 * 1024]).expect("written");
        (directory, path)
    }

    fn open(path: &Path, version: &str) -> Assembly {
        let old = LocalFile::open(path).expect("opened");
        Assembly::open(old, version, SIZE, Algorithm::Blake3).expect("opened")
    }

    /// Adds parts; the connection ends behind them.
    fn add(assembly: Assembly, parts: Vec<AssemblyPart>) -> Result<Digest, ClientError> {
        let (sender, receiver) = mpsc::channel(8);
        for part in parts {
            assert!(sender.try_send(part).is_ok());
        }
        drop(sender);
        assembly.add_all(receiver).map(|(_, digest)| digest)
    }

    #[test]
    fn an_interrupted_file_is_continued_for_the_same_version_only() {
        let (_directory, path) = old_file();
        let begin = vec![
            AssemblyPart::Received(Bytes::from_static(b"new")),
            AssemblyPart::Local(5..1000),
        ];
        add(open(&path, "v1"), begin).expect("added");
        let assembly = open(&path, "v1");
        assert_eq!(assembly.length(), 3 + 995);
        let end = vec![AssemblyPart::Local(0..SIZE - 998)];
        let digest = add(assembly, end).expect("added");
        let content = [b"new", &vec![b'o'; 2 * 1024 * 1024 - 3][..]].concat();
        assert_eq!(digest, Digest::compute(Algorithm::Blake3, &content));
        assert_eq!(open(&path, "v2").length(), 0);
        assert_eq!(fs::metadata(&path).expect("there").len(), SIZE);
    }

    #[test]
    fn nothing_is_kept_if_the_old_version_changes_meanwhile() {
        let (directory, path) = old_file();
        let assembly = open(&path, "v");
        fs::write(&path, "shorter").expect("written");
        let added = add(assembly, vec![AssemblyPart::Local(0..10)]);
        assert!(
            matches!(added, Err(ClientError::LocalChanged(_))),
            "{added:?}"
        );
        let entries = directory.path().read_dir().expect("readable").count();
        assert_eq!(entries, 1, "no part file is left");
    }
}

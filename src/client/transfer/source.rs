//! Local files that are put: plain blocking I/O, run on blocking threads by [`crate::client::transfer::file`].

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::{Errno, pread};

use crate::client::ClientError;
use crate::connection::LONG_CHUNK_BYTES;

/// Where the bytes of a put come from.
pub(crate) struct LocalFile {
    reader: Reader,
    path: PathBuf,
    pub(crate) size: Option<u64>,
    pub(crate) modified: Option<Timestamp>,
    read: u64,
}

enum Reader {
    /// A regular file, and what it was when it was opened.
    File(File, Stamp),
    /// A source without content of its own, such as a pipe.
    Pipe(Box<dyn Read + Send>),
}

/// Metadata that differs once a file was written to. Nobody can set back its change time, and it costs
/// less than a second reading.
#[derive(PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl LocalFile {
    /// A file. A pipe is refused, not waited for.
    pub(crate) fn open(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::local("read", path, source);
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(ClientError::LocalNeither(path.into()));
        }
        // Between the two it may have become a pipe.
        let (file, metadata) = open(path)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Err(ClientError::LocalNeither(path.into()));
        }
        // Files that the kernel makes up say that they are empty.
        let size = (metadata.len() > 0).then_some(metadata.len());
        Ok(Self {
            reader: Reader::File(file, Stamp::from(&metadata)),
            path: path.into(),
            size,
            modified: modified(&metadata),
            read: 0,
        })
    }

    /// A pipe that messages call `name`.
    pub(crate) fn pipe(name: &str, reader: impl Read + Send + 'static) -> Self {
        Self {
            reader: Reader::Pipe(Box::new(reader)),
            path: name.into(),
            size: None,
            modified: None,
            read: 0,
        }
    }

    /// Its name in messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be read again.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.reader, Reader::File(..))
    }

    /// Goes back or on to a place in a file.
    pub(crate) fn go_to(&mut self, offset: u64) -> Result<(), ClientError> {
        match &self.reader {
            Reader::File(..) => {
                self.read = offset;
                Ok(())
            }
            Reader::Pipe(_) => {
                let source = io::ErrorKind::NotSeekable.into();
                Err(ClientError::local("read", &self.path, source))
            }
        }
    }

    /// Fails if the file was written to since it was opened.
    pub(crate) fn check_unchanged(&self) -> Result<(), ClientError> {
        let failed = |source| ClientError::local("read", &self.path, source);
        match &self.reader {
            Reader::File(file, before)
                if Stamp::from(&file.metadata().map_err(failed)?) != *before =>
            {
                Err(ClientError::LocalChanged(self.path.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The next bytes, a full [`LONG_CHUNK`] except at the end, where there are none left. A file that
    /// was written to meanwhile has no end but an error.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.next_part(LONG_CHUNK_BYTES)
    }

    /// The next bytes, at most `limit` of them.
    pub(crate) fn next_part(&mut self, limit: usize) -> Result<Option<Bytes>, ClientError> {
        let failed = |source| ClientError::local("read", &self.path, source);
        let mut chunk = Vec::with_capacity(limit);
        match &mut self.reader {
            Reader::File(file, _) => {
                fill(file, &mut chunk, limit, self.read).map_err(failed)?;
            }
            Reader::Pipe(pipe) => {
                let mut rest = pipe.take(limit as u64);
                rest.read_to_end(&mut chunk).map_err(failed)?;
            }
        }
        self.read += chunk.len() as u64;
        let at_end = chunk.is_empty();
        let has_another_size = match self.size {
            Some(size) => self.read > size || (at_end && self.read < size),
            None => false,
        };
        if has_another_size {
            return Err(ClientError::LocalChanged(self.path.clone()));
        }
        if at_end {
            self.check_unchanged()?;
        }
        Ok((!at_end).then(|| chunk.into()))
    }
}

/// Opens what is there to be read. A pipe is not waited for.
fn open(path: &Path) -> Result<(File, Metadata), ClientError> {
    let failed = |source| ClientError::local("read", path, source);
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    Ok((file, metadata))
}

fn modified(metadata: &Metadata) -> Option<Timestamp> {
    let modified = metadata.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

/// Reads from `offset` on until so many bytes are there, or no more are.
fn fill(file: &File, chunk: &mut Vec<u8>, limit: usize, offset: u64) -> io::Result<()> {
    while chunk.len() < limit {
        let at = offset + chunk.len() as u64;
        match pread(file, spare_capacity(chunk), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    chunk.truncate(limit);
    Ok(())
}

/// A regular file that is read in one go.
pub(crate) struct SmallSource<'a> {
    file: File,
    path: &'a Path,
    before: Stamp,
    pub(crate) size: usize,
    pub(crate) modified: Option<Timestamp>,
}

impl<'a> SmallSource<'a> {
    /// Opens a regular file of at most `most` bytes; `None` if it is another kind of file or longer. It
    /// does not wait for a pipe.
    pub(crate) fn open(path: &'a Path, most: usize) -> Result<Option<Self>, ClientError> {
        let (file, metadata) = open(path)?;
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if !metadata.is_file() || size > most {
            return Ok(None);
        }
        Ok(Some(Self {
            file,
            path,
            before: Stamp::from(&metadata),
            size,
            modified: modified(&metadata),
        }))
    }

    /// Adds its bytes to `buffer`; `false` if it says that it is empty and is not, as files do that
    /// the kernel makes up.
    ///
    /// # Errors
    /// [`ClientError::LocalChanged`] if it was written to meanwhile.
    pub(crate) fn read_to(mut self, buffer: &mut Vec<u8>) -> Result<bool, ClientError> {
        let failed = |source| ClientError::local("read", self.path, source);
        if self.size == 0 {
            let read = self.file.read(&mut [0]).map_err(failed)?;
            return Ok(read == 0);
        }
        let start = buffer.len();
        buffer.resize(start + self.size, 0);
        let changed = || ClientError::LocalChanged(self.path.into());
        match self.file.read_exact(&mut buffer[start..]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
            read => read.map_err(failed)?,
        }
        if Stamp::from(&self.file.metadata().map_err(failed)?) != self.before {
            return Err(changed());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grows_or_shrinks_while_it_is_read_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        for (before, after) in [("12345", "123456"), ("12345", "1234")] {
            std::fs::write(&path, before).expect("written");
            let mut source = LocalFile::open(&path).expect("opened");
            std::fs::write(&path, after).expect("written");
            let outcome = source.next_chunk().and_then(|_| source.next_chunk());
            assert!(matches!(outcome, Err(ClientError::LocalChanged(_))));
        }
    }

    #[test]
    fn a_file_that_is_rewritten_while_it_is_read_is_noticed_though_its_size_and_time_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("base.db");
        std::fs::write(&path, "1 1").expect("written");
        let file = File::options().write(true).open(&path).expect("opened");
        let changed = || Stamp::from(&file.metadata().expect("there")).changed;
        let modified = file.metadata().and_then(|there| there.modified());
        let (modified, before) = (modified.expect("a time"), changed());
        let mut source = LocalFile::open(&path).expect("opened");
        let first = source.next_chunk().expect("readable");
        assert_eq!(first.as_deref(), Some(&b"1 1"[..]));
        // Clocks of file systems are coarse.
        while changed() == before {
            std::fs::write(&path, "2 2").expect("written");
            file.set_modified(modified).expect("set back");
        }
        let end = source.next_chunk();
        assert!(matches!(end, Err(ClientError::LocalChanged(_))));
    }
}

//! Local files that are uploaded. All methods block; [`crate::client::transfer::send`] runs them on blocking
//! threads.

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
use crate::protocol::{Algorithm, Digest, FileMode, Hasher};

/// The content of an upload.
pub(crate) struct LocalFile {
    reader: Reader,
    path: PathBuf,
    pub(crate) size: Option<u64>,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) mode: Option<FileMode>,
    read: u64,
}

enum Reader {
    /// A regular file, and its state when it was opened.
    File(File, Stamp),
    /// A source that can be read once, such as a pipe.
    Pipe(Box<dyn Read + Send>),
}

/// Metadata that differs after a file was written to. The change time cannot be set back, and comparing it
/// costs less than reading the file again.
#[derive(PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Whether a file with this stamp may begin with the bytes that it had at `before`: programs append to
    /// logs. Only its content shows whether it does.
    fn is_same_or_longer(&self, before: &Self) -> bool {
        self == before || self.size > before.size
    }
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
    /// Opens a file. A pipe is refused at once.
    pub(crate) fn open(path: &Path) -> Result<Self, ClientError> {
        let failed = |error| ClientError::local("read", path, error);
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(ClientError::LocalNotAFile(path.into()));
        }
        // It may have been replaced by a pipe since.
        let (file, metadata) = open(path)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Err(ClientError::LocalNotAFile(path.into()));
        }
        // Files of `/proc` have the size 0, and content.
        let is_empty = || Ok(rustix::io::retry_on_intr(|| pread(&file, &mut [0], 0))? == 0);
        let is_size_known = metadata.len() > 0 || is_empty().map_err(failed)?;
        let size = is_size_known.then_some(metadata.len());
        Ok(Self {
            reader: Reader::File(file, Stamp::from(&metadata)),
            path: path.into(),
            size,
            modified: modified(&metadata),
            mode: Some(FileMode::from_st_mode(metadata.mode())),
            read: 0,
        })
    }

    /// The digest of the file `path`.
    ///
    /// # Errors
    /// [`ClientError::Local`] if it cannot be read; [`ClientError::LocalChanged`] if it is written to
    /// meanwhile.
    pub(crate) fn digest(path: &Path, algorithm: Algorithm) -> Result<Digest, ClientError> {
        let mut file = Self::open(path)?;
        let mut hasher = Hasher::new(algorithm);
        while let Some(chunk) = file.next_chunk()? {
            hasher.update(&chunk);
        }
        file.finish(hasher)
    }

    /// A pipe that messages call `name`.
    pub(crate) fn pipe(name: &str, reader: impl Read + Send + 'static) -> Self {
        Self {
            reader: Reader::Pipe(Box::new(reader)),
            path: name.into(),
            size: None,
            modified: None,
            mode: None,
            read: 0,
        }
    }

    /// Its path, or its name in messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be read again.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.reader, Reader::File(..))
    }

    /// Sets the position of the next read.
    pub(crate) fn go_to(&mut self, offset: u64) -> Result<(), ClientError> {
        match &self.reader {
            Reader::File(..) => {
                self.read = offset;
                Ok(())
            }
            Reader::Pipe(_) => {
                let error = io::ErrorKind::NotSeekable.into();
                Err(ClientError::local("read", &self.path, error))
            }
        }
    }

    /// The digest of the bytes that were read and given to `hasher`, which are those that the file had when
    /// it was opened. If it has grown since, they are read and compared once more: it may have been replaced
    /// by longer content in place.
    ///
    /// # Errors
    /// [`ClientError::LocalChanged`] if the bytes are no longer the same.
    pub(crate) fn finish(&mut self, hasher: Hasher) -> Result<Digest, ClientError> {
        let digest = hasher.finish();
        if self.has_grown()? {
            let mut again = Hasher::new(digest.algorithm());
            self.go_to(0)?;
            while let Some(chunk) = self.next_chunk()? {
                again.update(&chunk);
            }
            if again.finish() != digest {
                return Err(ClientError::LocalChanged(self.path.clone()));
            }
        }
        Ok(digest)
    }

    fn has_grown(&self) -> Result<bool, ClientError> {
        let failed = |error| ClientError::local("read", &self.path, error);
        match &self.reader {
            Reader::File(file, before) if self.size.is_some() => {
                Ok(file.metadata().map_err(failed)?.size() > before.size)
            }
            _ => Ok(false),
        }
    }

    /// Fails if the file was written to since it was opened, unless it has grown.
    pub(crate) fn check_unchanged(&self) -> Result<(), ClientError> {
        let failed = |error| ClientError::local("read", &self.path, error);
        match &self.reader {
            Reader::File(file, before)
                if !Stamp::from(&file.metadata().map_err(failed)?).is_same_or_longer(before) =>
            {
                Err(ClientError::LocalChanged(self.path.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The next bytes: a full [`LONG_CHUNK_BYTES`] except before the end, and `None` at the end. A file that has
    /// grown since it was opened ends where it ended then; one that was written to otherwise, with an error.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.next_part(LONG_CHUNK_BYTES)
    }

    /// The next bytes, at most `limit` of them.
    pub(crate) fn next_part(&mut self, limit: usize) -> Result<Option<Bytes>, ClientError> {
        let mut chunk = Vec::new();
        let has_more = self.read_part(&mut chunk, limit)?;
        Ok(has_more.then(|| chunk.into()))
    }

    /// As [`next_part`](Self::next_part), in place of what `chunk` has, and in its memory if that is enough.
    /// `false` at the end.
    pub(crate) fn read_part(
        &mut self,
        chunk: &mut Vec<u8>,
        limit: usize,
    ) -> Result<bool, ClientError> {
        let failed = |error| ClientError::local("read", &self.path, error);
        let left = self
            .size
            .map_or(u64::MAX, |size| size.saturating_sub(self.read));
        let limit = usize::try_from(left).map_or(limit, |left| left.min(limit));
        chunk.clear();
        chunk.reserve_exact(limit);
        match &mut self.reader {
            Reader::File(file, _) => {
                fill(file, chunk, limit, self.read).map_err(failed)?;
            }
            Reader::Pipe(pipe) => {
                let mut limited = pipe.take(limit as u64);
                limited.read_to_end(chunk).map_err(failed)?;
            }
        }
        self.read += chunk.len() as u64;
        let at_end = chunk.is_empty();
        if at_end && self.size.is_some_and(|size| self.read < size) {
            return Err(ClientError::LocalChanged(self.path.clone()));
        }
        if at_end {
            self.check_unchanged()?;
        }
        Ok(!at_end)
    }
}

/// Opens an entry for reading. Does not wait for the writer of a pipe.
fn open(path: &Path) -> Result<(File, Metadata), ClientError> {
    let failed = |error| ClientError::local("read", path, error);
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

/// Reads from `offset` on until `chunk` has `limit` bytes or the file ends.
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

/// A regular file that is read at once.
pub(crate) struct SmallSource<'a> {
    file: File,
    path: &'a Path,
    before: Stamp,
    pub(crate) size: usize,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) mode: FileMode,
}

impl<'a> SmallSource<'a> {
    /// Opens a regular file of at most `max_bytes`; `None` if it is longer or not a regular file. Does not
    /// wait for the writer of a pipe.
    pub(crate) fn open(path: &'a Path, max_bytes: usize) -> Result<Option<Self>, ClientError> {
        let (file, metadata) = open(path)?;
        let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if !metadata.is_file() || size > max_bytes {
            return Ok(None);
        }
        Ok(Some(Self {
            file,
            path,
            before: Stamp::from(&metadata),
            size,
            modified: modified(&metadata),
            mode: FileMode::from_st_mode(metadata.mode()),
        }))
    }

    /// Appends its bytes to `buffer`; `false` if its size is 0 and it has content, as files of `/proc` do.
    ///
    /// # Errors
    /// [`ClientError::LocalChanged`] if it was written to since it was opened, unless it has grown.
    pub(crate) fn read_to(mut self, buffer: &mut Vec<u8>) -> Result<bool, ClientError> {
        let failed = |error| ClientError::local("read", self.path, error);
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
        let after = Stamp::from(&self.file.metadata().map_err(failed)?);
        if !after.is_same_or_longer(&self.before) {
            return Err(changed());
        }
        if after != self.before {
            // It may have been replaced by longer content in place.
            let mut again = Vec::with_capacity(self.size);
            fill(&self.file, &mut again, self.size, 0).map_err(failed)?;
            if again != buffer[start..] {
                return Err(changed());
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_shrinks_while_it_is_read_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        std::fs::write(&path, "12345").expect("written");
        let mut source = LocalFile::open(&path).expect("opened");
        std::fs::write(&path, "1234").expect("written");
        let outcome = source.next_chunk().and_then(|_| source.next_chunk());
        assert!(matches!(outcome, Err(ClientError::LocalChanged(_))));
    }

    #[test]
    fn a_file_that_grows_is_read_up_to_where_it_ended_when_it_was_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        std::fs::write(&path, "12345").expect("written");
        let mut source = LocalFile::open(&path).expect("opened");
        let small = SmallSource::open(&path, 100).expect("opened");
        let mut log = File::options().append(true).open(&path).expect("opened");
        log.write_all(b"678").expect("written");
        let first = source.next_chunk().expect("readable");
        assert_eq!(first.as_deref(), Some(&b"12345"[..]));
        assert_eq!(source.next_chunk().expect("readable"), None);
        let mut buffer = Vec::new();
        let is_read = small.expect("small").read_to(&mut buffer);
        assert!(is_read.expect("readable"));
        assert_eq!(buffer, b"12345");
        let mut hasher = Hasher::new(Algorithm::Blake3);
        hasher.update(b"12345");
        let digest = source.finish(hasher.clone()).expect("the same bytes");
        assert_eq!(digest, Digest::compute(Algorithm::Blake3, b"12345"));
        // Longer, and not the old bytes at the start.
        std::fs::write(&path, "another content").expect("written");
        let outcome = source.finish(hasher);
        assert!(matches!(outcome, Err(ClientError::LocalChanged(_))));
    }

    #[test]
    fn the_size_of_an_empty_file_is_known_and_that_of_a_file_of_proc_is_not() {
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let size = |path: &Path| LocalFile::open(path).expect("opened").size;
        assert_eq!(size(empty.path()), Some(0));
        assert_eq!(size(Path::new("/proc/self/status")), None);
    }

    #[test]
    fn a_file_that_is_rewritten_with_the_same_size_and_time_is_an_error() {
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
        // Change times have a coarse clock.
        while changed() == before {
            std::fs::write(&path, "2 2").expect("written");
            file.set_modified(modified).expect("set back");
        }
        let end = source.next_chunk();
        assert!(matches!(end, Err(ClientError::LocalChanged(_))));
    }
}

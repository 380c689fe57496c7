//! Transfers of one file between the local file system, or a pipe, and the server.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::client::transfer::blocking::blocking;
use crate::client::transfer::options::{FetchedFile, FileOptions, ListedContent};
use crate::client::transfer::receive::DownloadTarget;
use crate::client::transfer::sink::{LocalSink, remove_stale_parts};
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, Progress, Session};
use crate::protocol::{IfExists, PutReply};

impl Session {
    /// Gets a file into the path `local`, which names it once it is complete and verified. Its
    /// modification time is kept. Nothing is synced to the disk: after a loss of power the file may have to
    /// be got again. A file that changes on the server meanwhile is got from its start again.
    ///
    /// Until then it is a file `.haul-….part` in the same directory. If a large download is interrupted, by the
    /// end of the process or of the connection, the part file is kept for seven days, and the next get of
    /// the same file to the same path continues it if the file on the server is unchanged.
    ///
    /// # Errors
    /// An error of the server, the connection or the local disk. The part file is then removed, unless
    /// the same get may succeed later.
    pub async fn get_file(
        &self,
        remote: &str,
        local: &Path,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        progress.found_file(0);
        progress.found_all();
        let local = local.to_owned();
        let target = local.clone();
        blocking(move || {
            remove_stale_parts(std::iter::once(&*target));
            Ok(())
        })
        .await?;
        let found = ListedContent::from_size(0);
        self.get_found(remote, local, true, found, options, progress)
            .await
    }

    /// Gets a file into a pipe. It is verified at the end.
    ///
    /// # Errors
    /// An error of the server, the connection or the pipe, or that the file has changed: the bytes in the pipe
    /// cannot be discarded.
    pub async fn get_into(
        &self,
        remote: &str,
        writer: impl Write + Send + 'static,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        progress.found_file(0);
        progress.found_all();
        let sink = LocalSink::Stream(Box::new(writer), "standard output".into());
        let target = DownloadTarget::from_sink(sink);
        let found = ListedContent::from_size(0);
        self.fetch(remote, target, found, options, progress).await
    }

    /// Puts the file `local`. Its modification time is kept. If the server has a part of it from an interrupted
    /// attempt, and the file replaces any file of its name, the upload is resumed.
    ///
    /// # Errors
    /// An error of the server, the connection or the local disk.
    pub async fn put_file(
        &self,
        local: &Path,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        progress.found_file(0);
        progress.found_all();
        self.put_found(local.to_owned(), remote, 0, options, progress, false)
            .await
    }

    /// Puts the data from a pipe.
    ///
    /// # Errors
    /// An error of the server, the connection or the pipe. The upload fails with the connection, because
    /// data from a pipe cannot be read again.
    pub async fn put_from(
        &self,
        reader: impl Read + Send + 'static,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        progress.found_file(0);
        let source = LocalFile::pipe("standard input", reader);
        self.send(source, remote, 0, options, progress, false).await
    }

    /// [`get_file`](Self::get_file) of a file that was listed as `found`. With `is_named_by_user` the
    /// local path may be a link or a device.
    pub(crate) async fn get_found(
        &self,
        remote: &str,
        local: PathBuf,
        is_named_by_user: bool,
        found: ListedContent,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
        let open = if is_named_by_user {
            LocalSink::named
        } else {
            LocalSink::create
        };
        let target = DownloadTarget::open(move || open(&local, if_exists)).await?;
        self.fetch(remote, target, found, options, progress).await
    }

    /// [`put_file`](Self::put_file) of a file that was counted with `found` bytes. With `repeated` an earlier
    /// request for it may have succeeded.
    pub(crate) async fn put_found(
        &self,
        local: PathBuf,
        remote: &str,
        found: u64,
        options: FileOptions,
        progress: &Progress,
        repeated: bool,
    ) -> Result<PutReply, ClientError> {
        let source = blocking(move || LocalFile::open(&local)).await?;
        self.send(source, remote, found, options, progress, repeated)
            .await
    }
}

/// The same over one connection: each fails when the connection is lost.
#[expect(
    clippy::missing_errors_doc,
    reason = "those of the methods of `Session`"
)]
impl Client {
    /// See [`Session::get_file`].
    pub async fn get_file(
        &self,
        remote: &str,
        local: &Path,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let session = Session::from(self.clone());
        session.get_file(remote, local, options, progress).await
    }

    /// See [`Session::get_into`].
    pub async fn get_into(
        &self,
        remote: &str,
        writer: impl Write + Send + 'static,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let session = Session::from(self.clone());
        session.get_into(remote, writer, options, progress).await
    }

    /// See [`Session::put_file`].
    pub async fn put_file(
        &self,
        local: &Path,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let session = Session::from(self.clone());
        session.put_file(local, remote, options, progress).await
    }

    /// See [`Session::put_from`].
    pub async fn put_from(
        &self,
        reader: impl Read + Send + 'static,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let session = Session::from(self.clone());
        session.put_from(reader, remote, options, progress).await
    }
}

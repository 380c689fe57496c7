//! Whole files: disk and digest on a blocking thread while the network moves the next bytes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::client::transfer::blocking::blocking;
use crate::client::transfer::options::{FetchedFile, FileOptions};
use crate::client::transfer::receive::DownloadTarget;
use crate::client::transfer::sink::{LocalSink, remove_stale_parts};
use crate::client::transfer::source::LocalFile;
use crate::client::{Client, ClientError, Progress, Session};
use crate::protocol::{IfExists, PutReply};

impl Session {
    /// Gets a file into the path `local`, which names it only once it is whole and checked. Its
    /// modification time is kept. Nothing is synced to the disk: what was got shortly before the
    /// power fails may have to be got again. A file that becomes another meanwhile is got anew.
    ///
    /// Until then it is a file `.haul-….part` in the same directory. What a process that was killed
    /// left of that kind is removed when the next file is got into the directory.
    ///
    /// # Errors
    /// An error of the server, the connection or the local disk. Nothing is left behind then.
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
        self.get_found(remote, local, true, 0, options, progress)
            .await
    }

    /// Gets a file into a pipe, checked at the end only.
    ///
    /// # Errors
    /// An error of the server, the connection or the pipe, or that the file changed: data in the pipe
    /// cannot be taken back.
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
        let (place, file) = (DownloadTarget::from_sink(sink), progress.file(0));
        self.fetch(remote, place, options, file, progress).await
    }

    /// Puts the file `local`. Its modification time is kept. If the server kept a part of it when
    /// an earlier attempt was cut off, and the file replaces whatever has its name, it goes on
    /// from there.
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
        let local = local.to_owned();
        let source = blocking(move || LocalFile::open(&local)).await?;
        progress.found_file(source.size.unwrap_or(0));
        progress.found_all();
        self.send(source, remote, options, progress).await
    }

    /// Puts what comes from a pipe.
    ///
    /// # Errors
    /// An error of the server, the connection or the pipe. The upload ends with the connection, because
    /// data from a pipe cannot be read again.
    pub async fn put_from(
        &self,
        reader: impl Read + Send + 'static,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<PutReply, ClientError> {
        let source = LocalFile::pipe("standard input", reader);
        progress.found_file(0);
        self.send(source, remote, options, progress).await
    }

    /// [`get_file`](Self::get_file) of what was counted already, as so many bytes, to a name that
    /// the user chose or that the server did.
    pub(crate) async fn get_found(
        &self,
        remote: &str,
        local: PathBuf,
        named_by_user: bool,
        found: u64,
        options: FileOptions,
        progress: &Progress,
    ) -> Result<FetchedFile, ClientError> {
        let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
        let sink = if named_by_user {
            LocalSink::named
        } else {
            LocalSink::create
        };
        let place = DownloadTarget::made(move || sink(&local, if_exists)).await?;
        let file = progress.file(found);
        self.fetch(remote, place, options, file, progress).await
    }

    /// [`put_file`](Self::put_file) of what was counted already; `again` if it was sent before and
    /// nobody knows whether it arrived.
    pub(crate) async fn put_found(
        &self,
        local: PathBuf,
        remote: &str,
        options: FileOptions,
        progress: &Progress,
        again: bool,
    ) -> Result<PutReply, ClientError> {
        let source = blocking(move || LocalFile::open(&local)).await?;
        self.send_again(source, remote, options, progress, again)
            .await
    }
}

/// The same over one connection: each fails when that is lost.
#[expect(clippy::missing_errors_doc, reason = "those of the namesakes")]
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

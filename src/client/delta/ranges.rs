//! Parts of one version of a file on the server.

use bytes::Bytes;

use crate::client::{Client, ClientError, DownloadStream, GetOptions};
use crate::protocol::RequestedRange;

/// One version of a file on the server.
#[derive(Clone, Copy)]
pub(super) struct RangeSource<'a> {
    pub(super) client: &'a Client,
    pub(super) remote: &'a str,
    pub(super) version: &'a str,
}

/// The data of one request for ranges.
pub(super) struct RangeStream {
    download: DownloadStream,
    unread: Bytes,
    /// Ranges that were not read to their end.
    ranges: usize,
}

impl RangeSource<'_> {
    /// Asks for these ranges.
    pub(super) async fn open(
        self,
        ranges: Vec<RequestedRange>,
    ) -> Result<RangeStream, ClientError> {
        let count = ranges.len();
        let options = GetOptions {
            version: Some(self.version.to_owned()),
            ranges,
            ..GetOptions::default()
        };
        Ok(RangeStream {
            download: self.client.get(self.remote, options).await?,
            unread: Bytes::new(),
            ranges: count,
        })
    }
}

impl RangeStream {
    /// The next bytes, at most `limit` of them; `None` if the data ends too early.
    pub(super) async fn next(&mut self, limit: u64) -> Option<Bytes> {
        if self.unread.is_empty() {
            self.unread = self.download.raw_chunk().await?;
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Some(self.unread.split_to(limit.min(self.unread.len())))
    }

    /// The end of a range. Returns the stream unless this was the last range.
    pub(super) async fn end_range(mut self) -> Result<Option<Self>, ClientError> {
        self.ranges -= 1;
        if self.ranges > 0 {
            return Ok(Some(self));
        }
        self.download.finish_with(None).await?;
        Ok(None)
    }

    /// The error that ended the data too early.
    pub(super) async fn into_error(self) -> ClientError {
        match self.download.finish_with(None).await {
            Err(error) => error,
            Ok(_) => ClientError::InvalidReply("ranges of another length".into()),
        }
    }
}

//! One file of a tree on its way to the server: its `put`, its data and its `end` in one piece.

use std::path::PathBuf;

use futures::future::BoxFuture;
use serde_json::value::RawValue;

use crate::client::connection::{ReceivedPart, parse};
use crate::client::delta::is_worth_while;
use crate::client::transfer::send::{self, MIN_RESUME_BYTES};
use crate::client::transfer::source::SmallSource;
use crate::client::transfer::upload::check_reply;
use crate::client::tree::direction::{
    DiskStep, FinishedFile, FoundFile, PipelineLimits, PipelinedTransfer, TransferAttempt,
};
use crate::client::{ClientError, FileOptions, Progress, Session};
use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{
    Digest, End, MAX_CONTROL, Put, PutReply, WireError, encode_request, put_control, put_data_head,
};

/// The direction from this machine to the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadDirection {
    /// Whether the server keeps the permission bits of files.
    pub(crate) keeps_modes: bool,
    /// Whether a file that exists on the server is kept and is no failure. Then the upload of a new file that
    /// an earlier run began may be resumed.
    pub(crate) keeps_existing: bool,
}

/// A file to be put.
#[derive(Debug)]
pub(crate) struct LocalSource {
    pub(crate) local: PathBuf,
    pub(crate) remote: String,
    pub(crate) options: FileOptions,
}

/// The content that the server must confirm.
pub(crate) struct SentContent {
    size: u64,
    digest: Digest,
}

impl PipelinedTransfer for UploadDirection {
    type File = LocalSource;
    type Expected = SentContent;
    type Moved = PutReply;

    const DISK_STEP: DiskStep = DiskStep::Encode;
    const LIMITS: PipelineLimits = PipelineLimits {
        outstanding_bytes: 4 * 1024 * 1024,
        batch_files: 64,
        batch_bytes: 256 * 1024,
        received_bytes: 0,
    };

    fn encode(
        &self,
        file: &LocalSource,
        id: u32,
        frames: &mut Vec<u8>,
    ) -> Result<Option<SentContent>, ClientError> {
        let algorithm = file.options.algorithm;
        let Some(source) = SmallSource::open(&file.local, SHORT_CHUNK_BYTES)? else {
            return Ok(None);
        };
        let size = source.size;
        let put = Put {
            path: file.remote.clone(),
            size: Some(size as u64),
            if_exists: file.options.if_exists,
            modified: source.modified,
            mode: self.keeps_modes.then_some(source.mode),
            resume: false,
            parents: file.options.parents,
            digest: Some(algorithm),
            base: None,
        };
        let request = encode_request(id, &put);
        if request.len() > MAX_CONTROL {
            return Ok(None);
        }
        put_control(frames, &request);
        // An empty file has no data frame.
        if size > 0 {
            put_data_head(frames, id, size);
        }
        let start = frames.len();
        if !source.read_to(frames)? {
            return Ok(None);
        }
        let digest = Digest::compute(algorithm, &frames[start..]);
        let end = End {
            digest: Some(digest),
        };
        put_control(frames, &encode_request(id, &end));
        let size = size as u64;
        Ok(Some(SentContent { size, digest }))
    }

    fn complete(
        &self,
        _: &LocalSource,
        sent: SentContent,
        reply: &RawValue,
        _: ReceivedPart,
    ) -> Result<Option<PutReply>, ClientError> {
        check_reply(parse(reply)?, sent.size, sent.digest).map(Some)
    }

    fn refusal(file: &LocalSource, sent: &SentContent, error: WireError) -> ClientError {
        send::refusal(error, &file.remote, Some(sent.size))
    }

    fn moved_bytes(reply: &PutReply) -> u64 {
        reply.size
    }

    fn transfer(
        &self,
        session: &Session,
        found: FoundFile<LocalSource>,
        progress: &Progress,
        attempt: TransferAttempt,
    ) -> BoxFuture<'static, FinishedFile<Self>> {
        let (session, progress) = (session.clone(), progress.clone());
        let keeps_existing = self.keeps_existing;
        let is_repeated = attempt == TransferAttempt::Repeated;
        Box::pin(async move {
            let FoundFile { file, size } = found;
            let (local, remote, options) = (file.local.clone(), &file.remote, file.options);
            let result = if options.deltas && is_worth_while(size) && !is_repeated {
                let put = session.put_found_delta(local, remote, size, options, &progress);
                put.await.map(|(reply, _)| reply)
            } else {
                let is_resumed = is_repeated || keeps_existing && size >= MIN_RESUME_BYTES;
                let put = session.put_found(local, remote, size, options, &progress, is_resumed);
                put.await
            };
            (file, result)
        })
    }
}

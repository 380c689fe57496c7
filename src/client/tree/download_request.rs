//! One file of a tree on its way from the server: its `get`, and its data once all of it is here.

use std::path::PathBuf;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::value::RawValue;

use crate::client::connection::{ReceivedPart, parse};
use crate::client::delta::is_worth_while;
use crate::client::transfer::options::ListedContent;
use crate::client::transfer::sink::LocalSink;
use crate::client::tree::direction::{
    DiskStep, FinishedFile, FoundFile, PipelineLimits, PipelinedTransfer, TransferAttempt,
};
use crate::client::{ClientError, FetchedFile, FileOptions, Progress, Session};
use crate::connection::SHORT_CHUNK_BYTES;
use crate::protocol::{
    Digest, DigestChoice, Get, GetBegin, GetReply, Hasher, IfExists, MAX_CONTROL, WireError,
    encode_request, put_control,
};

/// The direction from the server to this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DownloadDirection {
    pub(crate) options: FileOptions,
}

/// An entry of a tree that is downloaded.
#[derive(Debug, Clone)]
pub(crate) struct LocalTarget {
    pub(crate) remote: String,
    pub(crate) local: PathBuf,
    /// Levels below the path that the user named, which has level 0.
    pub(crate) level: u32,
    /// The state in which a file was listed, if the file that is sent must have it.
    pub(crate) listed: Option<ListedContent>,
}

impl PipelinedTransfer for DownloadDirection {
    type File = LocalTarget;
    type Expected = ();
    type Moved = FetchedFile;

    const DISK_STEP: DiskStep = DiskStep::Complete;
    const LIMITS: PipelineLimits = PipelineLimits {
        outstanding_bytes: 8 * 1024 * 1024,
        batch_files: usize::MAX,
        batch_bytes: u64::MAX,
        received_bytes: SHORT_CHUNK_BYTES,
    };

    fn encode(
        &self,
        file: &LocalTarget,
        id: u32,
        frames: &mut Vec<u8>,
    ) -> Result<Option<()>, ClientError> {
        let get = Get {
            path: file.remote.clone(),
            offset: None,
            length: None,
            ranges: None,
            digest: Some(DigestChoice::Of(self.options.algorithm)),
            version: None,
        };
        let request = encode_request(id, &get);
        if request.len() > MAX_CONTROL {
            return Ok(None);
        }
        put_control(frames, &request);
        Ok(Some(()))
    }

    fn complete(
        &self,
        file: &LocalTarget,
        (): (),
        reply: &RawValue,
        received: ReceivedPart,
    ) -> Result<Option<FetchedFile>, ClientError> {
        let Some((begin, reply)) = check(reply, &received, self.options)? else {
            return Ok(None);
        };
        if let Some(listed) = file.listed {
            listed.check(&begin)?;
        }
        let path = store(file, &received.chunks, &begin, self.options)?;
        let (size, digest) = (reply.size, reply.digest);
        Ok(Some(FetchedFile { path, size, digest }))
    }

    fn refusal(_: &LocalTarget, (): &(), error: WireError) -> ClientError {
        ClientError::Server(error)
    }

    fn moved_bytes(fetched: &FetchedFile) -> u64 {
        fetched.size
    }

    /// A download may be repeated without harm, whatever became of the first attempt.
    fn transfer(
        &self,
        session: &Session,
        found: FoundFile<LocalTarget>,
        progress: &Progress,
        _: TransferAttempt,
    ) -> BoxFuture<'static, FinishedFile<Self>> {
        let (session, options, progress) = (session.clone(), self.options, progress.clone());
        Box::pin(async move {
            let FoundFile { file, size } = found;
            let (local, remote) = (file.local.clone(), &file.remote);
            let is_named_by_user = file.level == 0;
            let result = if options.deltas && is_worth_while(size) && !is_named_by_user {
                let get = session.get_found_delta(remote, local, size, options, &progress);
                get.await.map(|(fetched, _)| fetched)
            } else {
                let found = file.listed.unwrap_or(ListedContent::from_size(size));
                let get =
                    session.get_found(remote, local, is_named_by_user, found, options, &progress);
                get.await
            };
            (file, result)
        })
    }
}

/// Checks that the whole file arrived, as the server has it. `None` if it has grown since it was
/// listed, and more arrived than was kept.
fn check(
    reply: &RawValue,
    received: &ReceivedPart,
    options: FileOptions,
) -> Result<Option<(GetBegin, GetReply)>, ClientError> {
    let invalid = ClientError::invalid_reply;
    let begin = received.begin.as_deref();
    let begin: GetBegin = parse(begin.ok_or_else(|| invalid("a get ended before its begin"))?)?;
    let reply: GetReply = parse(reply)?;
    let is_complete = begin.offset == 0 && begin.length == begin.size && reply.size == begin.size;
    if !is_complete || received.bytes as u64 != begin.size {
        return Err(invalid(
            "a get sent another number of bytes than it announced",
        ));
    }
    if received.bytes > SHORT_CHUNK_BYTES {
        return Ok(None);
    }
    let server = reply
        .digest
        .ok_or_else(|| invalid("the reply to a get has no digest"))?;
    let local = digest_of(&received.chunks, options);
    if server != local {
        return Err(ClientError::DigestMismatch { server, local });
    }
    Ok(Some((begin, reply)))
}

fn digest_of(chunks: &[Bytes], options: FileOptions) -> Digest {
    let mut hasher = Hasher::new(options.algorithm);
    for chunk in chunks {
        hasher.update(chunk);
    }
    hasher.finish()
}

fn store(
    target: &LocalTarget,
    chunks: &[Bytes],
    begin: &GetBegin,
    options: FileOptions,
) -> Result<PathBuf, ClientError> {
    let if_exists = options.if_exists.unwrap_or(IfExists::Replace);
    let mut sink = if target.level == 0 {
        LocalSink::named(&target.local, if_exists)?
    } else {
        LocalSink::create(&target.local, if_exists)?
    };
    for chunk in chunks {
        sink.write(chunk)?;
    }
    sink.commit(begin.modified, begin.mode)
}

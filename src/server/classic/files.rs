//! Files of the classic dialect: raw bytes between two frames, in either direction.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::Instant;

use crate::protocol::{
    Algorithm, DigestChoice, End, ErrorCode, Get, Hash, HashReply, Ping, Put, Stat, WireError,
};
use crate::server::classic::commands::{ClassicDownload, ClassicUpload};
use crate::server::classic::frame::ClassicFileInfo;
use crate::server::classic::in_process_session::InProcessMessage;
use crate::server::classic::{ClassicClose, ClassicConversation, SessionReply, text};

/// A file that changes again and again between its digest and its bytes is given up after so many
/// tries.
const MAX_DOWNLOAD_ATTEMPTS: usize = 5;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> ClassicConversation<R, W> {
    /// Takes an upload to its end, whether the session wants it or not; what to tell the client.
    pub(crate) async fn put(
        &mut self,
        upload: ClassicUpload,
        size: u64,
    ) -> Result<String, ClassicClose> {
        let id = self
            .session
            .send_request(&Put {
                path: upload.path,
                size: Some(size),
                // It is kept with the file, so that a later `get` need not read the file for it.
                digest: Some(Algorithm::Md5),
                ..Put::default()
            })
            .await?;
        let answer = if self.logged_in {
            let early = self.forward(id, size).await?;
            let digest = upload.digest;
            self.session.resend_request(id, &End { digest }).await?;
            match early {
                Some(answer) => answer,
                None => self.wait_for_reply(id).await?,
            }
        } else {
            let answer = self.wait_for_reply(id).await?;
            self.discard(size).await?;
            answer
        };
        Ok(
            match answer.and_then(|json| crate::server::classic::parse_reply(&json)) {
                Ok(stored) => text::stored(&stored),
                Err(error) => text::not_stored(&error),
            },
        )
    }

    /// Passes a body on as the data of put `id`. The answer to it, if it has come before the last
    /// byte: then the session throws away what still comes.
    async fn forward(
        &mut self,
        id: u32,
        size: u64,
    ) -> Result<Option<SessionReply<Box<serde_json::value::RawValue>>>, ClassicClose> {
        let (mut left, mut early) = (size, None);
        while left > 0 {
            select! {
                biased;
                said = self.session.next_message() => {
                    if let (of, InProcessMessage::Reply(answer)) = said? && of == id {
                        early = Some(answer);
                    }
                    continue;
                }
                read = self.client.read_body() => read?,
            }
            let chunk = self.client.take_body(left);
            left -= chunk.len() as u64;
            self.session.send_data(id, chunk).await?;
        }
        Ok(early)
    }

    /// Reads a body to its end and throws it away.
    pub(crate) async fn discard(&mut self, size: u64) -> Result<(), ClassicClose> {
        let idle_timeout = self.shared.config().limits.idle_timeout;
        let (mut left, mut told) = (size, Instant::now());
        while left > 0 {
            select! {
                biased;
                said = self.session.next_message() => {
                    said?;
                    continue;
                }
                read = self.client.read_body() => read?,
            }
            left -= self.client.take_body(left).len() as u64;
            // The session does not see these bytes, and would take the client for idle.
            let is_quiet = idle_timeout.is_some_and(|idle| told.elapsed() > idle / 4);
            if self.logged_in && is_quiet {
                self.session.send_request(&Ping {}).await?;
                told = Instant::now();
            }
        }
        Ok(())
    }

    /// Sends a file, or says why not.
    pub(crate) async fn get(&mut self, download: ClassicDownload) -> Result<(), ClassicClose> {
        for _ in 0..MAX_DOWNLOAD_ATTEMPTS {
            match self.try_get(&download).await? {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::Changed => {}
                Err(error) => return self.send_reply(text::failure(&error)).await,
            }
        }
        let refusal = "the file changes again and again; try again once it is at rest";
        self.send_reply(refusal.into()).await
    }

    /// Sends a file with the digest of these very bytes, unless it changes before the first is sent.
    /// All three requests name one version, so no answer is about another file.
    async fn try_get(
        &mut self,
        download: &ClassicDownload,
    ) -> Result<SessionReply<()>, ClassicClose> {
        let path = || download.path.clone();
        let stat = match self.call(&Stat { path: path() }).await? {
            Ok(stat) => stat,
            Err(error) => return Ok(Err(error)),
        };
        let hash = Hash {
            path: path(),
            digest: Some(Algorithm::Md5),
            version: stat.entry.version.clone(),
        };
        let HashReply { digest, size } = match self.call(&hash).await? {
            Ok(hash) => hash,
            Err(error) => return Ok(Err(error)),
        };
        let get = Get {
            path: path(),
            version: stat.entry.version,
            digest: Some(DigestChoice::Of(Algorithm::Md5)),
            ..Get::default()
        };
        let id = self.session.send_request(&get).await?;
        match self.next_message(id).await? {
            InProcessMessage::Begin => {}
            InProcessMessage::Reply(Err(error)) => return Ok(Err(error)),
            InProcessMessage::Reply(Ok(_)) | InProcessMessage::Data(_) => {
                return Ok(Err(crate::server::classic::unreadable()));
            }
        }
        self.send_file_info(ClassicFileInfo {
            filename: stat.entry.name,
            size,
            dst_dir: download.dst_dir.clone(),
            file_hash: text::hex(&digest),
        })
        .await?;
        self.send_body(id).await.map_err(into_cut_short)?;
        Ok(Ok(()))
    }

    /// Passes the data of get `id` on as raw bytes. The last chunk waits until the session has said
    /// that all are right: a file that is not is never there whole.
    async fn send_body(&mut self, id: u32) -> Result<(), ClassicClose> {
        let mut held = Bytes::new();
        loop {
            let next = match self.next_message(id).await? {
                InProcessMessage::Begin => continue,
                InProcessMessage::Data(chunk) => Some(chunk),
                InProcessMessage::Reply(Ok(_)) => None,
                InProcessMessage::Reply(Err(WireError { message, .. })) => {
                    return Err(ClassicClose::CutShort(message));
                }
            };
            let last = next.is_none();
            let ready = std::mem::replace(&mut held, next.unwrap_or_default());
            self.client.send(ready).await?;
            if last {
                return Ok(());
            }
        }
    }
}

/// Nothing can be said where raw bytes are expected.
fn into_cut_short(over: ClassicClose) -> ClassicClose {
    match over {
        ClassicClose::Refused(_) | ClassicClose::Goodbye(_) | ClassicClose::SessionGone => {
            ClassicClose::CutShort(over.to_string())
        }
        over => over,
    }
}

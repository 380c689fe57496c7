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

/// The attempts to send a file that changes between its digest and its bytes.
const MAX_DOWNLOAD_ATTEMPTS: usize = 5;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> ClassicConversation<R, W> {
    /// Receives an upload completely, even if the session rejects it. Returns the text of the reply.
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
                // Stored with the file, so that a later `get` need not read the file for it.
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

    /// Forwards a body as the data of put `id`. Returns the reply to the put if it arrives before the
    /// last byte, in which case the session discards the rest.
    async fn forward(
        &mut self,
        id: u32,
        size: u64,
    ) -> Result<Option<SessionReply<Box<serde_json::value::RawValue>>>, ClassicClose> {
        let (mut left, mut early) = (size, None);
        while left > 0 {
            select! {
                biased;
                message = self.session.next_message() => {
                    if let (reply_id, InProcessMessage::Reply(answer)) = message? && reply_id == id {
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

    /// Reads a body completely and discards it.
    pub(crate) async fn discard(&mut self, size: u64) -> Result<(), ClassicClose> {
        let idle_timeout = self.shared.config().limits.idle_timeout;
        let (mut left, mut last_ping) = (size, Instant::now());
        while left > 0 {
            select! {
                biased;
                message = self.session.next_message() => {
                    message?;
                    continue;
                }
                read = self.client.read_body() => read?,
            }
            left -= self.client.take_body(left).len() as u64;
            // The session does not see these bytes, and would count the client as idle.
            let is_quiet = idle_timeout.is_some_and(|idle| last_ping.elapsed() > idle / 4);
            if self.logged_in && is_quiet {
                self.session.send_request(&Ping {}).await?;
                last_ping = Instant::now();
            }
        }
        Ok(())
    }

    /// Sends a file, or the reason for which it cannot.
    pub(crate) async fn get(&mut self, download: ClassicDownload) -> Result<(), ClassicClose> {
        for _ in 0..MAX_DOWNLOAD_ATTEMPTS {
            match self.try_get(&download).await? {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::Changed => {}
                Err(error) => return self.send_reply(text::failure(&error)).await,
            }
        }
        let refusal = "the file changes too often; try again when it does not change any more";
        self.send_reply(refusal.into()).await
    }

    /// Sends a file after the digest of its content, unless it changes before the first byte is sent.
    /// All three requests name one version, so all replies are about the same content.
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

    /// Forwards the data of get `id` as raw bytes. The last chunk waits for the final reply of the
    /// session, so that the client never gets a wrong file completely.
    async fn send_body(&mut self, id: u32) -> Result<(), ClassicClose> {
        let mut pending = Bytes::new();
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
            let ready = std::mem::replace(&mut pending, next.unwrap_or_default());
            self.client.send(ready).await?;
            if last {
                return Ok(());
            }
        }
    }
}

/// No reply can be sent while the client expects raw bytes.
fn into_cut_short(reason: ClassicClose) -> ClassicClose {
    match reason {
        ClassicClose::Refused(_) | ClassicClose::Goodbye(_) | ClassicClose::SessionGone => {
            ClassicClose::CutShort(reason.to_string())
        }
        reason => reason,
    }
}

//! Files of the classic dialect: raw bytes between two frames, in either direction.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::time::Instant;

use crate::protocol::{
    Algorithm, DigestChoice, End, ErrorCode, Get, Hash, HashReply, Ping, Put, Stat, WireError,
};
use crate::server::classic::commands::{Download, Upload};
use crate::server::classic::frame::File;
use crate::server::classic::in_process_session::InProcessMessage;
use crate::server::classic::{Answer, Conversation, ConversationEnd, text};

/// A file that changes again and again between its digest and its bytes is given up after so many
/// tries.
const TRIES: usize = 5;

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Conversation<R, W> {
    /// Takes an upload to its end, whether the session wants it or not; what to tell the client.
    pub(crate) async fn put(
        &mut self,
        upload: Upload,
        size: u64,
    ) -> Result<String, ConversationEnd> {
        let id = self
            .session
            .ask(&Put {
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
            self.session.ask_again(id, &End { digest }).await?;
            match early {
                Some(answer) => answer,
                None => self.answer(id).await?,
            }
        } else {
            let answer = self.answer(id).await?;
            self.discard(size).await?;
            answer
        };
        Ok(
            match answer.and_then(|json| crate::server::classic::read(&json)) {
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
    ) -> Result<Option<Answer<Box<serde_json::value::RawValue>>>, ConversationEnd> {
        let (mut left, mut early) = (size, None);
        while left > 0 {
            select! {
                biased;
                said = self.session.next() => {
                    if let (of, InProcessMessage::Reply(answer)) = said? && of == id {
                        early = Some(answer);
                    }
                    continue;
                }
                read = self.client.read_body() => read?,
            }
            let chunk = self.client.take_body(left);
            left -= chunk.len() as u64;
            self.session.data(id, chunk).await?;
        }
        Ok(early)
    }

    /// Reads a body to its end and throws it away.
    pub(crate) async fn discard(&mut self, size: u64) -> Result<(), ConversationEnd> {
        let idle_timeout = self.shared.config().limits.idle_timeout;
        let (mut left, mut told) = (size, Instant::now());
        while left > 0 {
            select! {
                biased;
                said = self.session.next() => {
                    said?;
                    continue;
                }
                read = self.client.read_body() => read?,
            }
            left -= self.client.take_body(left).len() as u64;
            // The session does not see these bytes, and would take the client for idle.
            let is_quiet = idle_timeout.is_some_and(|idle| told.elapsed() > idle / 4);
            if self.logged_in && is_quiet {
                self.session.ask(&Ping {}).await?;
                told = Instant::now();
            }
        }
        Ok(())
    }

    /// Sends a file, or says why not.
    pub(crate) async fn get(&mut self, download: Download) -> Result<(), ConversationEnd> {
        for _ in 0..TRIES {
            match self.try_get(&download).await? {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::Changed => {}
                Err(error) => return self.say(text::failure(&error)).await,
            }
        }
        let refusal = "the file changes again and again; try again once it is at rest";
        self.say(refusal.into()).await
    }

    /// Sends a file with the digest of these very bytes, unless it changes before the first is sent.
    /// All three requests name one version, so no answer is about another file.
    async fn try_get(&mut self, download: &Download) -> Result<Answer<()>, ConversationEnd> {
        let path = || download.path.clone();
        let stat = match self.ask(&Stat { path: path() }).await? {
            Ok(stat) => stat,
            Err(error) => return Ok(Err(error)),
        };
        let hash = Hash {
            path: path(),
            digest: Some(Algorithm::Md5),
            version: stat.version.clone(),
        };
        let HashReply { digest, size } = match self.ask(&hash).await? {
            Ok(hash) => hash,
            Err(error) => return Ok(Err(error)),
        };
        let get = Get {
            path: path(),
            version: stat.version,
            digest: Some(DigestChoice::Of(Algorithm::Md5)),
            ..Get::default()
        };
        let id = self.session.ask(&get).await?;
        match self.hear(id).await? {
            InProcessMessage::Begin => {}
            InProcessMessage::Reply(Err(error)) => return Ok(Err(error)),
            InProcessMessage::Reply(Ok(_)) | InProcessMessage::Data(_) => {
                return Ok(Err(crate::server::classic::unreadable()));
            }
        }
        self.announce(File {
            filename: stat.entry.name,
            size,
            dst_dir: download.dst_dir.clone(),
            file_hash: text::hex(&digest),
        })
        .await?;
        self.send_body(id).await.map_err(cut_short)?;
        Ok(Ok(()))
    }

    /// Passes the data of get `id` on as raw bytes. The last chunk waits until the session has said
    /// that all are right: a file that is not is never there whole.
    async fn send_body(&mut self, id: u32) -> Result<(), ConversationEnd> {
        let mut held = Bytes::new();
        loop {
            let next = match self.hear(id).await? {
                InProcessMessage::Begin => continue,
                InProcessMessage::Data(chunk) => Some(chunk),
                InProcessMessage::Reply(Ok(_)) => None,
                InProcessMessage::Reply(Err(WireError { message, .. })) => {
                    return Err(ConversationEnd::CutShort(message));
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
fn cut_short(over: ConversationEnd) -> ConversationEnd {
    match over {
        ConversationEnd::Refused(_) | ConversationEnd::Goodbye(_) | ConversationEnd::Gone => {
            ConversationEnd::CutShort(over.to_string())
        }
        over => over,
    }
}

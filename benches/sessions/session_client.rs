//! A client that does almost nothing, so that the measurements are of the server.

use std::time::Duration;

use haul::connection::Receiver;
use haul::protocol::{Call, Frame, FrameCodec, Login, Secret, encode_request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::SessionsResult;
use crate::daemon::Daemon;

const PATIENCE: Duration = Duration::from_mins(10);

/// A session that is logged in.
pub(crate) struct BenchSession {
    pub(crate) receiver: Receiver<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
}

/// A request as it goes over the wire.
pub(crate) fn framed<C: Call>(id: u32, request: &C) -> Vec<u8> {
    let json = encode_request(id, request);
    let length = u32::try_from(json.len()).expect("a request is short");
    [&length.to_be_bytes()[..], &json].concat()
}

/// The login of the daemon's admin.
pub(crate) fn login(token: &str) -> Vec<u8> {
    let token = Some(Secret::new(token.to_owned()));
    framed(
        1,
        &Login {
            token,
            ..Login::default()
        },
    )
}

/// Fails unless the reply is a success.
pub(crate) fn check(reply: &[u8]) -> SessionsResult<()> {
    let text = String::from_utf8_lossy(reply);
    if text.contains("\"ok\":") || text.contains("\"begin\":") {
        return Ok(());
    }
    Err(text.into_owned().into())
}

impl BenchSession {
    pub(crate) async fn log_in(daemon: &Daemon) -> SessionsResult<Self> {
        Self::log_in_at(&daemon.address, &daemon.token).await
    }

    pub(crate) async fn log_in_at(address: &str, token: &str) -> SessionsResult<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut line = Self {
            receiver: Receiver::new(reader, FrameCodec::new(), PATIENCE),
            writer,
        };
        line.ask(&login(token)).await?;
        Ok(line)
    }

    /// Sends a request that one frame answers, and waits for the reply.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> SessionsResult<()> {
        self.writer.write_all(request).await?;
        let frame = self.receiver.next().await?.ok_or("closed")?;
        let Frame::Control(json) = frame else {
            return Err("bytes that nobody asked for".into());
        };
        check(&json)
    }
}

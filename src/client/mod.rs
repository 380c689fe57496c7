//! The client: log in to a server, call its commands, move files and whole trees.
//!
//! ```no_run
//! # async fn example() -> Result<(), haul::client::ClientError> {
//! use haul::client::{Client, GetOptions, Trust};
//! use haul::protocol::Secret;
//!
//! let url = "haul://files.example.org:9000".parse().expect("an address");
//! let client = Client::connect(&url, &Trust::default()).await?;
//! client.login("alice", &Secret::new("a long password".into())).await?;
//! let mut download = client.get("reports/may.pdf", GetOptions::default()).await?;
//! while let Some(chunk) = download.chunk().await {
//!     println!("{} bytes", chunk.len());
//! }
//! download.finish().await?;
//! # Ok(()) }
//! ```
//!
//! A [`Client`] is one connection. It is cheap to clone and takes many calls at once: a request
//! does not wait for the reply to another. Everything is bounded; who asks for more waits. A
//! [`Session`] session outlives its connections, and its transfers go on where they were.
//! [`Client::events`] are what the server says without being asked; [`EventSubscription`] has them over all
//! connections of a session, each once.

mod commands;
mod connection;
mod datagram;
mod discover;
mod error;
mod events;
mod live;
mod logs;
mod session;
pub mod sync;
mod tls;
mod transfer;
mod tree;
mod trust;
mod url;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::client::events::EventReceiver;
use crate::client::tls::System;
use crate::connection::ReadAhead;
use crate::protocol::{Call, Login, LoginReply, MAX_CONTROL_BEFORE_LOGIN, Secret};
use crate::tls::Fingerprint;

pub use crate::client::datagram::Datagrams;
pub use crate::client::discover::{DiscoveredServer, discover, neighbourhood};
pub use crate::client::error::{ClientError, Lost};
pub use crate::client::events::{EventPosition, Events};
pub use crate::client::live::EventSubscription;
pub use crate::client::logs::LogLines;
pub use crate::client::session::Session;
pub use crate::client::session::backoff::RetryPolicy;
pub use crate::client::transfer::download::{DownloadStream, GetOptions};
pub use crate::client::transfer::options::{FetchedFile, FileOptions};
pub use crate::client::transfer::progress::{Progress, Waiting};
pub use crate::client::transfer::upload::{PutOptions, UploadStream};
pub(crate) use crate::client::tree::join;
pub use crate::client::tree::{TreeEvent, TreeSummary};
pub use crate::client::trust::Trust;
pub use crate::client::url::{InvalidUrl, ServerUrl};

/// For a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For the answer to what a server answers at once. A login may have to queue for its hashing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A silent connection is probed after this, so that a dead peer is noticed in a minute or so.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection to a server. The connection ends when the last clone and the last transfer is
/// dropped.
#[derive(Debug, Clone)]
pub struct Client {
    line: Arc<Connection>,
    fingerprint: Option<Fingerprint>,
    /// Where the server is, if that is known.
    address: Option<IpAddr>,
}

impl Client {
    /// Connects to a server, encrypted unless the address says otherwise. Nobody is logged in yet.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no connection is made within ten seconds, or the network fails
    /// in the handshake. If it is to be encrypted: [`ClientError::UnknownServer`], [`ClientError::ServerChanged`],
    /// [`ClientError::WrongFingerprint`] or [`ClientError::Uncertified`] if the server is not
    /// trusted, [`ClientError::Handshake`] for anything else.
    pub async fn connect(url: &ServerUrl, trust: &Trust) -> Result<Self, ClientError> {
        if !url.tls {
            let stream = reach(url).await?;
            let address = ip_of(&stream);
            let (reader, writer) = stream.into_split();
            return Ok(Self {
                line: Connection::start(reader, writer),
                fingerprint: None,
                address,
            });
        }
        let secured = if trust.knows(&url.address()) {
            match reach_securely(url, trust, System::Left).await {
                Err(ClientError::ServerChanged { .. }) => {
                    reach_securely(url, trust, System::Asked).await
                }
                secured => secured,
            }
        } else {
            reach_securely(url, trust, System::Asked).await
        };
        let (stream, fingerprint, address) = secured?;
        Ok(Self {
            fingerprint: Some(fingerprint),
            address,
            ..Self::from_stream(stream)
        })
    }

    /// Speaks to a server over any byte stream.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn from_stream<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            line: Connection::start(reader, writer),
            fingerprint: None,
            address: None,
        }
    }

    /// That of the server's certificate, if the connection is encrypted.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Logs in by password.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server does not let this user in.
    pub async fn login(&self, user: &str, password: &Secret) -> Result<LoginReply, ClientError> {
        self.log_in(Login {
            user: Some(user.into()),
            password: Some(password.clone()),
            ..Login::default()
        })
        .await
    }

    /// Logs in by token, which says who the user is.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server does not take the token.
    pub async fn login_with_token(&self, token: &Secret) -> Result<LoginReply, ClientError> {
        self.log_in(Login {
            token: Some(token.clone()),
            ..Login::default()
        })
        .await
    }

    /// Logs in by the certificate that the client has shown, which says who the user is. With
    /// `user`, only as that user.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server does not take it.
    pub async fn login_with_certificate(
        &self,
        user: Option<&str>,
    ) -> Result<LoginReply, ClientError> {
        self.log_in(Login {
            user: user.map(Into::into),
            ..Login::default()
        })
        .await
    }

    /// Logs in by whatever `login` holds; with `since` what came after it is sent.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server does not let this user in.
    pub async fn log_in(&self, login: Login) -> Result<LoginReply, ClientError> {
        let secrets = [
            &login.user.clone().map(Secret::new),
            &login.password,
            &login.token,
        ];
        let length = secrets
            .into_iter()
            .flatten()
            .map(|secret| secret.expose().len())
            .sum();
        // Twice the length: what has to be escaped takes more room. The server would hang up.
        if 2 * length > MAX_CONTROL_BEFORE_LOGIN {
            return Err(ClientError::TooLong {
                length,
                limit: MAX_CONTROL_BEFORE_LOGIN / 2,
            });
        }
        match self.call_promptly(login).await {
            Ok(reply) => {
                // There is one login on a connection.
                let _ = self.line.login.set(reply.clone());
                Ok(reply)
            }
            Err(ClientError::Server(error)) => Err(ClientError::Login(error)),
            Err(error) => Err(error),
        }
    }

    /// Sends any request that moves no file, and waits for its reply.
    ///
    /// If the future is dropped the request goes on and its reply is thrown away.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server says no, [`ClientError::Lost`] if the connection ends
    /// before it answers.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        self.line.call(&request).await?.reply().await
    }

    /// [`call`](Self::call) for what takes a sound server no time.
    async fn call_promptly<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        timeout(ANSWER_TIMEOUT, self.call(request))
            .await
            .unwrap_or(Err(ClientError::TimedOut(ANSWER_TIMEOUT)))
    }

    /// Cuts the connection off, for all clones. What is unfinished fails with [`Lost::HungUp`];
    /// the server keeps what it has of an upload that can be resumed.
    pub fn hang_up(&self) {
        self.line.hang_up();
    }

    /// Why the connection is gone, if it is.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.line.lost()
    }
}

fn ip_of(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip())
}

/// A connection to where the server is.
async fn reach(url: &ServerUrl) -> Result<TcpStream, ClientError> {
    let failed = |source| ClientError::Connect {
        server: url.address(),
        source,
    };
    let connecting = TcpStream::connect((url.host.as_str(), url.port));
    let stream = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    SockRef::from(&stream)
        .set_tcp_keepalive(&keepalive)
        .map_err(failed)?;
    Ok(stream)
}

/// An encrypted connection to a server that is trusted.
async fn reach_securely(
    url: &ServerUrl,
    trust: &Trust,
    system: System,
) -> Result<
    (
        impl AsyncRead + AsyncWrite + Send + 'static,
        Fingerprint,
        Option<IpAddr>,
    ),
    ClientError,
> {
    let stream = reach(url).await?;
    let address = ip_of(&stream);
    let (reader, writer) = stream.into_split();
    let stream = tokio::io::join(ReadAhead::new(reader), writer);
    // Boxed: it takes room that is free again soon.
    let handshake = Box::pin(tls::handshake(stream, url, trust, system));
    let (stream, fingerprint) = timeout(CONNECT_TIMEOUT, handshake)
        .await
        .unwrap_or_else(|_| {
            let reason = format!("the server did not answer within {CONNECT_TIMEOUT:?}");
            Err(ClientError::Connect {
                server: url.address(),
                source: std::io::Error::new(std::io::ErrorKind::TimedOut, reason),
            })
        })?;
    Ok((stream, fingerprint, address))
}

impl Client {
    /// The position of an event of this connection.
    #[must_use]
    pub fn position(&self, seq: u64) -> EventPosition {
        let login = self.line.login.get();
        let epoch = login.and_then(|login| login.epoch.clone());
        EventPosition { seq, epoch }
    }

    /// Whether the server does not know what this client had: it was restored to an earlier state,
    /// or is another one. Then it sends all that it has.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        let login = self.line.login.get();
        login.is_some_and(|login| login.resumed == Some(false))
    }

    /// The events from now on, or since [`keep_events`](Self::keep_events). What was not sent to
    /// any session of the user before comes with the login: who wants to hear that calls this
    /// before it. There is one who hears: an earlier stream ends. This does not keep the
    /// connection open.
    #[must_use]
    pub fn events(&self) -> Events {
        self.line.with_events(EventReceiver::events)
    }

    /// Keeps events from now on for who calls [`events`](Self::events) soon. Without either they
    /// are thrown away.
    pub fn keep_events(&self) {
        self.line.with_events(EventReceiver::keep);
    }
}

#[cfg(test)]
mod tests;

//! The client: log in to a server, call its commands, transfer files and whole trees.
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
//! A [`Client`] is one connection. It is cheap to clone and accepts many calls at the same time: a request
//! does not wait for the reply to another. The number of requests is bounded; further ones wait. A
//! [`Session`] outlives its connections, and resumes its transfers. [`Client::events`] are the messages
//! that the server sends without a request; an [`EventSubscription`] delivers them over all connections of a
//! session, each once.

mod accounts;
mod bandwidth;
mod commands;
mod connection;
mod datagram;
mod delta;
mod discover;
mod error;
mod events;
mod line_stream;
mod local_tree;
mod logs;
mod session;
mod subscription;
pub mod sync;
mod tls;
mod transfer;
mod tree;
mod tree_entries;
mod trust;
mod url;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::client::events::EventQueues;
use crate::client::tls::System;
use crate::connection::ReadAhead;
use crate::io_error::describe_io_error;
use crate::protocol::{Call, Login, LoginReply, MAX_CONTROL_BEFORE_LOGIN, Secret};
use crate::tls::Fingerprint;

pub use crate::client::datagram::Datagrams;
pub use crate::client::delta::DeltaBytes;
pub use crate::client::discover::{DiscoveredServer, discover, neighbourhood};
pub use crate::client::error::{ClientError, Lost};
pub use crate::client::events::{EventPosition, Events};
pub use crate::client::logs::LogLines;
pub use crate::client::session::Session;
pub use crate::client::session::backoff::RetryPolicy;
pub use crate::client::subscription::EventSubscription;
pub use crate::client::transfer::download::{DownloadStream, GetOptions};
pub use crate::client::transfer::options::{FetchedFile, FileOptions};
pub use crate::client::transfer::progress::{Progress, Waiting};
pub use crate::client::transfer::upload::{PutOptions, UploadStream};
pub(crate) use crate::client::tree::join;
pub use crate::client::tree::{FollowedLinks, NotKept, TreeEvent, TreeOptions, TreeSummary};
pub use crate::client::tree_entries::TreeEntries;
pub use crate::client::trust::Trust;
pub use crate::client::url::{InvalidUrl, ServerUrl};

/// The time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for the reply to a request that a server answers at once. A login may wait for its password
/// hash.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A silent connection is probed after this time, so that a dead peer is noticed within about a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection to a server. The connection ends when the last clone and the last transfer is
/// dropped.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
    fingerprint: Option<Fingerprint>,
    /// The address of the server, if it is known.
    address: Option<IpAddr>,
}

impl Client {
    /// Connects to a server, encrypted unless the scheme of the address is `haul+plain`. It does not log in.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no connection is made within ten seconds, or the network fails
    /// in the handshake. With encryption also [`ClientError::UnknownServer`],
    /// [`ClientError::ServerChanged`], [`ClientError::WrongFingerprint`] or
    /// [`ClientError::UntrustedCertificate`] if the server is not trusted, and [`ClientError::Handshake`]
    /// for any other failure.
    pub async fn connect(url: &ServerUrl, trust: &Trust) -> Result<Self, ClientError> {
        if !url.tls {
            let stream = reach(url).await?;
            let address = ip_of(&stream);
            let (reader, writer) = stream.into_split();
            return Ok(Self {
                connection: Connection::start(reader, writer),
                fingerprint: None,
                address,
            });
        }
        let secured = if trust.knows(&url.address()) {
            match reach_securely(url, trust, System::Skip).await {
                Err(ClientError::ServerChanged { .. }) => {
                    reach_securely(url, trust, System::Use).await
                }
                secured => secured,
            }
        } else {
            reach_securely(url, trust, System::Use).await
        };
        let (stream, fingerprint, address) = secured?;
        Ok(Self {
            fingerprint: Some(fingerprint),
            address,
            ..Self::from_stream(stream)
        })
    }

    /// A connection over any byte stream.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn from_stream<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            connection: Connection::start(reader, writer),
            fingerprint: None,
            address: None,
        }
    }

    /// The fingerprint of the server's certificate, if the connection is encrypted.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Logs in by password.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server refuses the login.
    pub async fn login(&self, user: &str, password: &Secret) -> Result<LoginReply, ClientError> {
        self.log_in(Login {
            user: Some(user.into()),
            password: Some(password.clone()),
            ..Login::default()
        })
        .await
    }

    /// Logs in by token, which identifies the user.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server refuses the token.
    pub async fn login_with_token(&self, token: &Secret) -> Result<LoginReply, ClientError> {
        self.log_in(Login {
            token: Some(token.clone()),
            ..Login::default()
        })
        .await
    }

    /// Logs in by the certificate of the client, which identifies the user. With `user`, only as that
    /// user.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server refuses it.
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

    /// Logs in by the credentials in `login`. With `since`, the later events are sent.
    ///
    /// # Errors
    /// [`ClientError::Login`] if the server refuses the login.
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
        // Escaping may double the length. The server closes the connection after a request that is too long.
        if 2 * length > MAX_CONTROL_BEFORE_LOGIN {
            return Err(ClientError::TooLong {
                length,
                limit: MAX_CONTROL_BEFORE_LOGIN / 2,
            });
        }
        match self.call_promptly(login).await {
            Ok(reply) => {
                // There is one login on a connection.
                let _ = self.connection.login.set(reply.clone());
                Ok(reply)
            }
            Err(ClientError::Server(error)) => Err(ClientError::Login(error)),
            Err(error) => Err(error),
        }
    }

    /// Sends any request that transfers no file, and waits for its reply.
    ///
    /// If the future is dropped, the server still executes the request, and its reply is discarded.
    ///
    /// # Errors
    /// [`ClientError::Server`] if the server refuses the request, [`ClientError::Lost`] if the connection
    /// ends before the reply.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        self.connection.call(&request).await?.reply().await
    }

    /// [`call`](Self::call) for requests that a server answers at once.
    async fn call_promptly<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        timeout(ANSWER_TIMEOUT, self.call(request))
            .await
            .unwrap_or(Err(ClientError::TimedOut(ANSWER_TIMEOUT)))
    }

    /// Closes the connection, for all clones. Unfinished requests fail with [`Lost::HungUp`]; the server
    /// keeps its part of a resumable upload.
    pub fn hang_up(&self) {
        self.connection.hang_up();
    }

    /// Why the connection is lost, if it is.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        self.connection.lost()
    }
}

fn ip_of(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().ok().map(|address| address.ip())
}

/// A network connection to the server.
async fn reach(url: &ServerUrl) -> Result<TcpStream, ClientError> {
    let failed = |error| ClientError::Connect {
        server: url.address(),
        error,
    };
    let connecting = async {
        let addresses: Vec<_> = lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|error| lookup_error(&error))?
            .collect();
        TcpStream::connect(addresses.as_slice()).await
    };
    let stream = timeout(CONNECT_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| Err(no_answer()))
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

/// Says in plain words that a name does not exist. The C libraries have several texts for it.
fn lookup_error(error: &io::Error) -> io::Error {
    const UNKNOWN_NAME: [&str; 3] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
    ];
    let reason = describe_io_error(error);
    let reason = reason
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(&reason);
    if UNKNOWN_NAME.contains(&reason) {
        io::Error::new(io::ErrorKind::NotFound, "no such host")
    } else {
        let reason = format!("cannot look up the host: {reason}");
        io::Error::new(error.kind(), reason)
    }
}

fn no_answer() -> io::Error {
    let seconds = CONNECT_TIMEOUT.as_secs();
    let reason = format!("the server did not answer within {seconds} seconds");
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

/// An encrypted connection to a trusted server.
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
    // Boxed, because the future is large and short-lived.
    let handshake = Box::pin(tls::handshake(stream, url, trust, system));
    let (stream, fingerprint) = timeout(CONNECT_TIMEOUT, handshake)
        .await
        .unwrap_or_else(|_| {
            Err(ClientError::Connect {
                server: url.address(),
                error: no_answer(),
            })
        })?;
    Ok((stream, fingerprint, address))
}

impl Client {
    /// The position of an event of this connection.
    #[must_use]
    pub fn position(&self, seq: u64) -> EventPosition {
        let login = self.connection.login.get();
        let epoch = login.and_then(|login| login.epoch.clone());
        EventPosition { seq, epoch }
    }

    /// Whether the reply to the login lists a feature of the server. Those of older servers list none.
    #[must_use]
    pub fn has_feature(&self, name: &str) -> bool {
        let login = self.connection.login.get();
        login.is_some_and(|login| login.features.iter().any(|feature| feature == name))
    }

    /// Whether the server does not know the position of the login: it was restored to an earlier state,
    /// or is another server. Then it sends all events that it has.
    #[must_use]
    pub fn server_was_reset(&self) -> bool {
        let login = self.connection.login.get();
        login.is_some_and(|login| login.resumed == Some(false))
    }

    /// The events from now on, or since [`keep_events`](Self::keep_events). Events that no session of
    /// the user has received are sent after the login: call this before the login to receive them. A
    /// connection has one stream of events: an earlier stream ends. The stream does not keep the connection
    /// open.
    #[must_use]
    pub fn events(&self) -> Events {
        self.connection.with_events(EventQueues::events)
    }

    /// Keeps events from now on for a later call of [`events`](Self::events). Without either they are
    /// discarded.
    pub fn keep_events(&self) {
        self.connection.with_events(EventQueues::keep);
    }
}

#[cfg(test)]
mod tests;

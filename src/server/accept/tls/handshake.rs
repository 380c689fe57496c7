//! The TLS handshake of the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::accounts::UserName;

/// How long the server reads on after a failed handshake, so that the peer can read the alert.
const ALERT_LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection after its handshake.
pub(crate) struct TlsConnection<S> {
    pub(crate) stream: TlsStream<S>,
    /// The user named by the client's certificate, if it sent one that the server trusts.
    pub(crate) user: Option<UserName>,
}

/// Does the handshake. A client whose handshake fails gets an alert.
pub(crate) async fn handshake<S>(
    config: Arc<ServerConfig>,
    stream: S,
) -> io::Result<TlsConnection<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    match accepting.await {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates();
            let user = chain.and_then(|chain| certificate_user(chain.first()?));
            Ok(TlsConnection { stream, user })
        }
        Err((error, stream)) => {
            let _ = timeout(ALERT_LINGER_TIMEOUT, drain_after_alert(stream)).await;
            Err(error)
        }
    }
}

/// Reads on for a moment: closing a socket with unread bytes resets the connection and may discard the
/// alert.
async fn drain_after_alert(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = [0; 1024];
    if stream.shutdown().await.is_ok() {
        while let Ok(1..) = stream.read(&mut bytes).await {}
    }
}

/// The user named by a certificate: its only common name, if that is a valid user name.
fn certificate_user(certificate: &[u8]) -> Option<UserName> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn user(names: &[&str]) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (index, name) in names.iter().enumerate() {
            // A distinguished name of this library has one value of each type.
            let kind = match index {
                0 => DnType::CommonName,
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        certificate_user(certificate.der()).map(|user| user.to_string())
    }

    #[test]
    fn a_certificate_names_a_user_by_its_one_common_name() {
        assert_eq!(user(&["alice"]).as_deref(), Some("alice"));
        assert_eq!(user(&[]), None);
        assert_eq!(user(&["alice", "bob"]), None);
        for name in ["", "Alice", "../alice", "alice\0bob", "alice "] {
            assert_eq!(user(&[name]), None, "{name:?}");
        }
        assert_eq!(certificate_user(b"no certificate"), None);
    }
}

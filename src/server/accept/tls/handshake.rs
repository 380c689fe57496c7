//! The handshake: from bytes on a socket to a stream that nobody between can read.

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

/// How long a peer that is refused may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// A stream after its handshake.
pub(crate) struct Secured<S> {
    pub(crate) stream: TlsStream<S>,
    /// Who the client is, by a certificate of an authority that the server trusts.
    pub(crate) user: Option<UserName>,
}

/// Agrees on keys with the client. One that is refused gets its alert.
pub(crate) async fn handshake<S>(config: Arc<ServerConfig>, stream: S) -> io::Result<Secured<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    match accepting.await {
        Ok(stream) => {
            let chain = stream.get_ref().1.peer_certificates();
            let user = chain.and_then(|chain| user_of(chain.first()?));
            Ok(Secured { stream, user })
        }
        Err((error, stream)) => {
            let _ = timeout(LINGER, let_go(stream)).await;
            Err(error)
        }
    }
}

/// Reads on for a moment: closing on unread bytes would take the alert back.
async fn let_go(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut bytes = [0; 1024];
    if stream.shutdown().await.is_ok() {
        while let Ok(1..) = stream.read(&mut bytes).await {}
    }
}

/// The user whom a certificate names: its one common name, if that can be a user name.
fn user_of(certificate: &[u8]) -> Option<UserName> {
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
        user_of(certificate.der()).map(|user| user.to_string())
    }

    #[test]
    fn a_certificate_names_a_user_by_its_one_common_name() {
        assert_eq!(user(&["alice"]).as_deref(), Some("alice"));
        assert_eq!(user(&[]), None);
        assert_eq!(user(&["alice", "bob"]), None);
        for name in ["", "Alice", "../alice", "alice\0bob", "alice "] {
            assert_eq!(user(&[name]), None, "{name:?}");
        }
        assert_eq!(user_of(b"no certificate"), None);
    }
}

//! The handshake at the client: from a socket to a stream that nobody between can read.

use std::io;
use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, OtherError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::trust::Distrust;
use crate::client::{ClientError, Lost, ServerUrl, Trust};
use crate::tls;
use crate::tls::Fingerprint;

/// Whether the authorities of the system are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Asked,
    /// Reading them takes its time.
    Left,
}

/// Agrees on keys with the server at `url`, if its certificate is trusted.
pub(crate) async fn handshake<S>(
    stream: S,
    url: &ServerUrl,
    trust: &Trust,
    system: System,
) -> Result<(TlsStream<S>, Fingerprint), ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let server = url.address();
    let failed = |reason: String| ClientError::Handshake {
        server: url.address(),
        reason,
    };
    let name = ServerName::try_from(url.host.clone())
        .map_err(|_| failed("its name can be in no certificate".into()))?;
    let system = match system {
        System::Asked => system_authorities().await,
        System::Left => &[],
    };
    let judge = trust.judge(&server, system);
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::VERSIONS)
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match trust.own.clone() {
        Some(own) => builder.with_client_cert_resolver(own as Arc<dyn ResolvesClientCert>),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = connecting
        .await
        .map_err(|error| why(&server, error, trust.knows(&server)))?;
    let shown = stream.get_ref().1.peer_certificates();
    let shown = shown.and_then(<[_]>::first);
    let fingerprint = shown.map(|certificate| Fingerprint::of_certificate(certificate));
    let fingerprint = fingerprint.ok_or_else(|| failed("it shows no certificate".into()))?;
    Ok((stream, fingerprint))
}

/// Read once. What cannot be read vouches for nobody.
async fn system_authorities() -> &'static [CertificateDer<'static>] {
    static AUTHORITIES: OnceCell<Vec<CertificateDer<'static>>> = OnceCell::const_new();
    let read = || async {
        let reading = spawn_blocking(|| rustls_native_certs::load_native_certs().certs);
        reading.await.unwrap_or_default()
    };
    AUTHORITIES.get_or_init(read).await
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// A network that fails is no failure of TLS: the next connection may do better.
fn why(server: &str, error: io::Error, known: bool) -> ClientError {
    let address = server.to_owned();
    let Some(failure) = tls_error(&error) else {
        let source = match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), Lost::Closed),
            _ => error,
        };
        return ClientError::Connect {
            server: address,
            source,
        };
    };
    let reason = match failure {
        Error::InvalidCertificate(CertificateError::Other(OtherError(distrust))) => {
            match distrust.downcast_ref::<Distrust>() {
                Some(distrust) => return distrusted(address, distrust.clone()),
                None => error.to_string(),
            }
        }
        Error::InvalidMessage(_) => {
            return ClientError::NoTls {
                server: address,
                known,
            };
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the server has no TLS 1.3".into()
        }
        _ => error.to_string(),
    };
    ClientError::Handshake {
        server: address,
        reason,
    }
}

fn distrusted(address: String, distrust: Distrust) -> ClientError {
    match distrust {
        Distrust::Unknown { fingerprint } => ClientError::UnknownServer {
            address,
            fingerprint,
        },
        Distrust::Changed { expected, got } => ClientError::ServerChanged {
            address,
            expected,
            got,
        },
        Distrust::NotTheOne { expected, got } => ClientError::WrongFingerprint {
            address,
            expected,
            got,
        },
        Distrust::Uncertified {
            reason,
            fingerprint,
        } => ClientError::Uncertified {
            address,
            reason,
            fingerprint,
        },
    }
}

/// Why a connection broke. In TLS 1.3 a server judges the client's certificate only when the client
/// takes the handshake for done.
pub(crate) fn why_broken(error: &io::Error) -> Lost {
    use AlertDescription as A;
    match tls_error(error) {
        Some(Error::AlertReceived(
            alert @ (A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError),
        )) => Lost::CertificateRefused(format!("{alert:?}")),
        // A server that was killed says no goodbye, in TLS either.
        None if error.kind() == io::ErrorKind::UnexpectedEof => Lost::Closed,
        _ => Lost::Broken(error.to_string()),
    }
}

//! The TLS handshake of the client.

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
use crate::io_error::describe_io_error;
use crate::tls;
use crate::tls::Fingerprint;

/// Whether the authorities of the system are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Use,
    /// Reading them takes time.
    Skip,
}

/// Makes an encrypted stream to the server at `url`, if its certificate is trusted.
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
        .map_err(|_| failed("its name is not valid in a certificate".into()))?;
    let system = match system {
        System::Use => system_authorities().await,
        System::Skip => &[],
    };
    let verifier = trust.verifier(&server, system);
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::VERSIONS)
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match trust.own.clone() {
        Some(own) => builder.with_client_cert_resolver(own as Arc<dyn ResolvesClientCert>),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = connecting
        .await
        .map_err(|error| handshake_error(&server, error, trust.knows(&server)))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let first = certificates.and_then(<[_]>::first);
    let fingerprint = first.map(|certificate| Fingerprint::of_certificate(certificate));
    let fingerprint = fingerprint.ok_or_else(|| failed("the server has no certificate".into()))?;
    Ok((stream, fingerprint))
}

/// The authorities of the system, read once. Those that cannot be read are ignored.
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

/// A failure of the network is not one of TLS: the next connection may succeed.
fn handshake_error(server: &str, error: io::Error, known: bool) -> ClientError {
    let address = server.to_owned();
    let Some(failure) = tls_error(&error) else {
        let error = match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), Lost::Closed),
            _ => error,
        };
        return ClientError::Connect {
            server: address,
            error,
        };
    };
    let reason = match failure {
        Error::InvalidCertificate(CertificateError::Other(OtherError(distrust))) => {
            match distrust.downcast_ref::<Distrust>() {
                Some(distrust) => return distrusted(address, distrust.clone()),
                None => describe_io_error(&error),
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
        _ => describe_io_error(&error),
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
        Distrust::NotTheOnlyTrusted { expected, got } => ClientError::WrongFingerprint {
            address,
            expected,
            got,
        },
        Distrust::UntrustedCertificate {
            reason,
            fingerprint,
        } => ClientError::UntrustedCertificate {
            address,
            reason,
            fingerprint,
        },
    }
}

/// Why a connection broke. In TLS 1.3 a server verifies the client's certificate after the handshake has
/// ended for the client.
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
        // A server that was killed sends no `close_notify`.
        None if error.kind() == io::ErrorKind::UnexpectedEof => Lost::Closed,
        _ => Lost::Broken(describe_io_error(error)),
    }
}

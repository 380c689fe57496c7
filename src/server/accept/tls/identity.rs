//! The certificate and key of the server, and the CA of its clients' certificates, loaded into a TLS
//! configuration.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config;
use crate::server::accept::tls::certificate::ServerCertificate;
use crate::server::accept::tls::error::TlsError;
use crate::server::accept::tls::self_signed;
use crate::server::accept::tls::self_signed::CertificateFiles;
use crate::tls;
use crate::tls::{Fingerprint, PemError};

/// The TLS configuration of the server.
#[derive(Debug, Clone)]
pub(crate) struct TlsIdentity {
    config: Arc<ServerConfig>,
    pub(crate) certificate: ServerCertificate,
}

impl TlsIdentity {
    /// Loads the files that the settings name. If they name none, loads the certificate in the data
    /// directory, and creates it if it is missing. Blocks.
    pub(crate) fn load(settings: &config::TlsSettings, data: &Path) -> Result<Self, TlsError> {
        let files = match configured_files(settings)? {
            Some(files) => files,
            None => self_signed::find_or_create(data)?,
        };
        Self::read(&files, settings)
    }

    /// Checks that [`Self::load`] would succeed, and creates nothing. Blocks.
    pub(crate) fn check(settings: &config::TlsSettings, data: &Path) -> Result<(), TlsError> {
        let files = match configured_files(settings)? {
            Some(files) => Some(files),
            None => self_signed::find(data)?,
        };
        match files {
            Some(files) => Self::read(&files, settings).map(drop),
            None => client_verifier(settings.client_ca.as_deref()).map(drop),
        }
    }

    fn read(files: &CertificateFiles, settings: &config::TlsSettings) -> Result<Self, TlsError> {
        let chain = read(&files.certificate, tls::certificates)?;
        let key = read(&files.key, tls::private_key)?;
        let unusable = |reason: String| TlsError::Unusable {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason,
        };
        let certificate = ServerCertificate {
            fingerprint: Fingerprint::of_certificate(&chain[0]),
            expires: expiry(&chain[0])
                .ok_or_else(|| unusable("the certificate cannot be parsed".into()))?,
            path: files.certificate.clone(),
        };
        let config = server_config(chain, key, settings.client_ca.as_deref())?
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            config: Arc::new(config),
            certificate,
        })
    }

    /// The configuration for new connections.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Fails if the certificate has expired.
    pub(crate) fn unexpired(self, now: Timestamp) -> Result<Self, TlsError> {
        let ServerCertificate { path, expires, .. } = &self.certificate;
        if *expires <= now {
            return Err(TlsError::Expired {
                path: path.clone(),
                expires: *expires,
            });
        }
        Ok(self)
    }
}

/// The files that the settings name, if any.
fn configured_files(settings: &config::TlsSettings) -> Result<Option<CertificateFiles>, TlsError> {
    match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => Ok(Some(CertificateFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        })),
        (None, None) => Ok(None),
        _ => Err(TlsError::HalfSet),
    }
}

fn read<T>(path: &Path, parse: fn(&[u8]) -> Result<T, PemError>) -> Result<T, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Read {
        path: path.into(),
        source,
    })?;
    parse(&bytes).map_err(|source| TlsError::Pem {
        path: path.into(),
        source,
    })
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The outer error is about the clients' CA, the inner one about the certificate.
fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&Path>,
) -> Result<Result<ServerConfig, rustls::Error>, TlsError> {
    let builder =
        ServerConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::VERSIONS);
    let builder = match builder {
        Ok(builder) => builder,
        Err(error) => return Ok(Err(error)),
    };
    let builder = match client_verifier(client_ca)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    Ok(builder.with_single_cert(chain, key).map(|mut config| {
        // No resumption: it would take memory, and would outlive the trust in a client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }))
}

/// The verifier of client certificates, if the settings name a CA for them.
fn client_verifier(
    client_ca: Option<&Path>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(path) = client_ca else {
        return Ok(None);
    };
    let refuse = |reason: String| TlsError::ClientCa {
        path: path.into(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for ca in read(path, tls::certificates)? {
        roots.add(ca).map_err(|error| refuse(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .map(Some)
        .map_err(|error| refuse(error.to_string()))
}

/// Checks that a server can start with the certificate that the settings name, or with the one in its
/// data directory. Changes nothing. Blocks.
///
/// # Errors
/// [`TlsError`].
pub fn check_certificate(config: &config::Config) -> Result<(), TlsError> {
    TlsIdentity::check(&config.tls, &config.server.data)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    struct IdentityDirectory(tempfile::TempDir);

    impl IdentityDirectory {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).expect("written");
            path
        }

        fn load(
            &self,
            certificate: Option<PathBuf>,
            key: Option<PathBuf>,
        ) -> Result<TlsIdentity, TlsError> {
            let settings = config::TlsSettings {
                certificate,
                key,
                client_ca: None,
            };
            TlsIdentity::load(&settings, self.0.path())
        }
    }

    fn certificate(year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["files.example.org".into()]).expect("a name");
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_configured_certificate_has_its_fingerprint_and_expiry() {
        let directory = IdentityDirectory::new();
        let (certificate, key) = certificate(2040);
        let (certificate, key) = (
            directory.write("c", &certificate),
            directory.write("k", &key),
        );
        let loaded = directory
            .load(Some(certificate.clone()), Some(key))
            .expect("sound")
            .certificate;
        let der = tls::certificates(&fs::read(&certificate).expect("there")).expect("one");
        assert_eq!(loaded.fingerprint, Fingerprint::of_certificate(&der[0]));
        assert_eq!(loaded.expires.to_string(), "2040-01-01T00:00:00Z");
        assert_eq!(loaded.path, certificate);
    }

    #[test]
    fn unusable_files_are_refused_and_named() {
        let directory = IdentityDirectory::new();
        let (first, key) = certificate(2040);
        let (_, second) = certificate(2040);
        let (first, key) = (directory.write("one", &first), directory.write("key", &key));
        let second = directory.write("other", &second);
        let garbage = directory.write(
            "garbage",
            "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
        );
        let empty = directory.write("empty", "");
        let missing = directory.0.path().join("missing");
        for (certificate, key, says) in [
            (Some(&first), None, "need each other"),
            (Some(&first), Some(&second), "other: "),
            (Some(&garbage), Some(&key), "garbage cannot be used"),
            (
                Some(&empty),
                Some(&key),
                "empty: it contains no certificate",
            ),
            (
                Some(&first),
                Some(&first),
                "one: it contains no unencrypted private key",
            ),
            (Some(&missing), Some(&key), "cannot read"),
        ] {
            let error = directory
                .load(certificate.cloned(), key.cloned())
                .expect_err(says)
                .to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_expired_certificate_is_detected() {
        let directory = IdentityDirectory::new();
        let (certificate, key) = certificate(2001);
        let (certificate, key) = (
            directory.write("c", &certificate),
            directory.write("k", &key),
        );
        let loaded = directory.load(Some(certificate), Some(key)).expect("sound");
        let error = loaded
            .unexpired(Timestamp::now())
            .expect_err("old")
            .to_string();
        assert!(error.contains("expired at 2001-01-01T00:00:00Z"), "{error}");
    }

    #[test]
    fn a_client_ca_file_without_a_certificate_is_refused_and_named() {
        let directory = IdentityDirectory::new();
        let settings = config::TlsSettings {
            client_ca: Some(directory.write("ca", "nothing")),
            ..config::TlsSettings::default()
        };
        let error = TlsIdentity::load(&settings, directory.0.path())
            .expect_err("no CA")
            .to_string();
        assert!(error.contains("ca: it contains no certificate"), "{error}");
    }
}

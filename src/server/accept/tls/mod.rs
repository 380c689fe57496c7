//! TLS of the server: its certificate, and the handshake.
//!
//! The certificate can be replaced while the server runs: each connection keeps the configuration that
//! was current when its handshake started.

pub(crate) mod handshake;
pub(crate) mod identity;
pub(crate) mod self_signed;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::config::Config;
use crate::tls::{Fingerprint, PemError};

pub(crate) use crate::server::accept::tls::handshake::handshake;
pub(crate) use crate::server::accept::tls::identity::TlsIdentity;

/// The certificate that a server presents to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The fingerprint by which clients recognise it.
    pub fingerprint: Fingerprint,
    /// When it expires.
    pub expires: Timestamp,
    /// Its file.
    pub path: PathBuf,
}

/// The server warns if its certificate expires within this time.
const EXPIRY_WARNING: SignedDuration = SignedDuration::from_hours(30 * 24);

impl ServerCertificate {
    /// Logs the certificate that new connections get from now on.
    pub(crate) fn log(&self) {
        let Self {
            fingerprint,
            expires,
            path,
        } = self;
        let path = path.display();
        info!(name: "certificate", %fingerprint, %expires, %path, "certificate");
        if expires.duration_since(Timestamp::now()) < EXPIRY_WARNING {
            warn!(
                name: "certificate_expires",
                %expires,
                %path,
                "the certificate expires soon or has expired; renew it"
            );
        }
    }
}

/// Checks that a server can start with the certificate that the settings name, or with the one in its
/// data directory. Changes nothing. Blocks.
///
/// # Errors
/// [`TlsError`].
pub fn check_certificate(config: &Config) -> Result<(), TlsError> {
    TlsIdentity::check(&config.tls, &config.server.data)
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The settings name only one of the two files.
    #[error("tls.certificate and tls.key need each other; set both or neither")]
    HalfSet,
    /// A file cannot be read.
    #[error(
        "cannot read {}: {source}; the user that runs haul must be able to read the files named in [tls]",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file does not contain what it should.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: PemError,
    },
    /// The certificate cannot be parsed, or does not belong to the key.
    #[error("{} cannot be used with the key in {}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The certificate is no longer valid.
    #[error("the certificate in {} expired at {expires}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// When it expired.
        expires: Timestamp,
    },
    /// The CA of client certificates cannot be used.
    #[error("tls.client_ca, {}: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The key that the server created at its first start is missing.
    #[error(
        "{} exists without {}; restore the missing file, or remove the other one so that the server \
         creates both again: every client will then ask whether to trust the new certificate",
        there.display(), missing.display()
    )]
    HalfThere {
        /// The file that exists.
        there: PathBuf,
        /// The file that is missing.
        missing: PathBuf,
    },
    /// The server cannot create a certificate.
    #[error("cannot create a certificate in {}: {reason}", directory.display())]
    Make {
        /// The directory of the certificate.
        directory: PathBuf,
        /// The reason.
        reason: String,
    },
}

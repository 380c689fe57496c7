//! TLS at the server: the certificate that it shows, and the handshake.
//!
//! The certificate can be exchanged while the server runs: each connection takes what is there when
//! its handshake begins, and keeps it.

pub(crate) mod handshake;
pub(crate) mod identity;
pub(crate) mod self_signed;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::config::Config;
use crate::tls::{Fingerprint, PemError};

pub(crate) use crate::server::accept::tls::handshake::handshake;
pub(crate) use crate::server::accept::tls::identity::Identity;

/// What a server shows to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// By this clients know it again.
    pub fingerprint: Fingerprint,
    /// Until when it is valid.
    pub expires: Timestamp,
    /// The file that it is in.
    pub path: PathBuf,
}

/// A certificate that ends sooner than this is worth a warning.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

impl ServerCertificate {
    /// Says in the log what new connections see from now on.
    pub(crate) fn log(&self) {
        let Self {
            fingerprint,
            expires,
            path,
        } = self;
        let path = path.display();
        info!(name: "certificate", %fingerprint, %expires, %path, "certificate");
        if expires.duration_since(Timestamp::now()) < SOON {
            warn!(
                name: "certificate_expires",
                %expires,
                %path,
                "the certificate expires soon or has expired; renew it"
            );
        }
    }
}

/// Makes sure that a server can start with the certificate that the settings name, or with the one in
/// its data directory. Changes nothing. Blocks.
///
/// # Errors
/// [`TlsError`].
pub fn check_certificate(config: &Config) -> Result<(), TlsError> {
    Identity::check(&config.tls, &config.server.data)
}

/// Why a server has no certificate to show, or not another one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The settings name one of two files.
    #[error("tls.certificate and tls.key need each other; set both, or neither")]
    HalfSet,
    /// A file can not be read.
    #[error(
        "can not read {}: {source}; the settings of [tls] name files that the user whom haul runs as \
         may read",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// The certificate is none, or has another key.
    #[error("{} can not be used with the key in {}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The certificate is no longer valid.
    #[error("the certificate in {} expired at {expires}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Until when it was valid.
        expires: Timestamp,
    },
    /// No certificate of clients can be checked.
    #[error("tls.client_ca, {}: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// One of the two files that the server made at its first start is gone.
    #[error(
        "{} is there without {}; restore it, or remove the other to have both made anew: \
         every client will then ask whether to trust the new certificate",
        there.display(), missing.display()
    )]
    HalfThere {
        /// The file that is left.
        there: PathBuf,
        /// The file that is gone.
        missing: PathBuf,
    },
    /// A certificate of its own can not be made.
    #[error("can not make a certificate in {}: {reason}", directory.display())]
    Make {
        /// Where it was to be.
        directory: PathBuf,
        /// Why not.
        reason: String,
    },
}

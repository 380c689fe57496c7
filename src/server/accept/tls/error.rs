//! The errors of the certificate and its key.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::io_error::describe_io_error;
use crate::tls::PemError;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The settings name only one of the two files.
    #[error("tls.certificate and tls.key need each other; set both or neither")]
    HalfSet,
    /// A file cannot be read.
    #[error(
        "cannot read {}: {}; the user that runs haul must be able to read the files named in [tls]",
        path.display(),
        describe_io_error(source)
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

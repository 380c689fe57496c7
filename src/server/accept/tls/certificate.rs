//! The certificate that a server presents.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::tls::Fingerprint;

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

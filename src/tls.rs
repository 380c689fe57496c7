//! What both ends of TLS need: fingerprints, PEM files, and the one version that is spoken.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The versions that are spoken: TLS 1.3, nothing older.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The cryptography, named here so that nothing depends on what else a process has installed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The SHA-256 of a certificate, by which people and programs tell one server from another.
/// Written as every digest is: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// The text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint; expected \"sha256:\" and 64 hexadecimal digits")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// Of a certificate, as it is sent: DER, not PEM.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Parses what [`Display`](fmt::Display) writes, and also the colons and upper-case letters
    /// that other tools print.
    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let text = text.trim();
        let hex = match text.get(..7) {
            Some(name) if name.eq_ignore_ascii_case("sha256:") => &text[7..],
            _ => text,
        };
        let hex = hex.replace(':', "");
        let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
        let bytes = bytes.map_err(|_| InvalidFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| InvalidFingerprint)
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// A PEM file does not hold what is looked for. Says nothing of its contents, which may be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// There is no certificate.
    #[error("there is no certificate in it (\"-----BEGIN CERTIFICATE-----\")")]
    NoCertificate,
    /// There is no private key.
    #[error("there is no unencrypted private key in it (\"-----BEGIN PRIVATE KEY-----\")")]
    NoKey,
    /// The key is not that of the certificate, or neither can be used.
    #[error("the certificate and the key do not belong together")]
    WrongKey,
    /// It is not PEM.
    #[error("it is damaged: not PEM")]
    Damaged,
}

/// All certificates of a PEM file, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(PemError::NoCertificate),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(PemError::Damaged),
    }
}

/// The first private key of a PEM file.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => PemError::NoKey,
        _ => PemError::Damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_and_as_other_tools_write_it() {
        let fingerprint = Fingerprint::of(b"a certificate");
        let written = fingerprint.to_string();
        assert_eq!(written.len(), 71);
        let hex = written.strip_prefix("sha256:").expect("an algorithm");
        let pairs: Vec<_> = hex
            .as_bytes()
            .chunks(2)
            .map(String::from_utf8_lossy)
            .collect();
        let with_colons = pairs.join(":").to_uppercase();
        for text in [
            &written,
            hex,
            &with_colons,
            &format!("SHA256:{with_colons}\n"),
        ] {
            assert_eq!(text.parse(), Ok(fingerprint), "{text}");
        }
    }

    #[test]
    fn what_is_too_short_or_no_hexadecimal_is_no_fingerprint() {
        let short = "sha256:abcd".to_owned();
        for text in [
            "",
            "sha256:",
            &short,
            &format!("sha256:{}", "g".repeat(64)),
            "sha256é",
        ] {
            assert_eq!(
                text.parse::<Fingerprint>(),
                Err(InvalidFingerprint),
                "{text}"
            );
        }
    }

    #[test]
    fn a_pem_file_without_what_is_needed_is_told_from_a_damaged_one() {
        assert_eq!(certificates(b"hello"), Err(PemError::NoCertificate));
        assert_eq!(private_key(b"hello").err(), Some(PemError::NoKey));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(certificates(cut), Err(PemError::Damaged));
        let junk = b"-----BEGIN PRIVATE KEY-----\n???\n-----END PRIVATE KEY-----\n";
        assert_eq!(private_key(junk).err(), Some(PemError::Damaged));
    }
}

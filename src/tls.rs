//! TLS parts that server and client share: fingerprints, PEM files and the supported version.

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

/// The supported versions: only TLS 1.3.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The cryptography provider. It is explicit, so that it does not depend on a process-wide default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The SHA-256 of a certificate, which identifies a server. Its text form is that of all digests:
/// `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint; expected \"sha256:\" and 64 hexadecimal digits")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    #[must_use]
    pub fn of_certificate(certificate: &[u8]) -> Self {
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

    /// Parses the form of [`Display`](fmt::Display). Also accepts the colons and upper-case letters of
    /// other tools.
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

/// A PEM file is not usable. The error reveals no content, which may be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The file contains no certificate.
    #[error("it contains no certificate (\"-----BEGIN CERTIFICATE-----\")")]
    NoCertificate,
    /// The file contains no unencrypted private key.
    #[error("it contains no unencrypted private key (\"-----BEGIN PRIVATE KEY-----\")")]
    NoKey,
    /// The key does not match the certificate, or one of them is not usable.
    #[error("the certificate and the key do not match")]
    WrongKey,
    /// The file is not valid PEM.
    #[error("it is not a valid PEM file")]
    Damaged,
}

/// The certificates of a PEM file, at least one.
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
        let fingerprint = Fingerprint::of_certificate(b"a certificate");
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
    fn a_short_or_non_hexadecimal_text_is_not_a_fingerprint() {
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
    fn a_pem_file_without_the_item_differs_from_a_damaged_one() {
        assert_eq!(certificates(b"hello"), Err(PemError::NoCertificate));
        assert_eq!(private_key(b"hello").err(), Some(PemError::NoKey));
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert_eq!(certificates(cut), Err(PemError::Damaged));
        let junk = b"-----BEGIN PRIVATE KEY-----\n???\n-----END PRIVATE KEY-----\n";
        assert_eq!(private_key(junk).err(), Some(PemError::Damaged));
    }
}

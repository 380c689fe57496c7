//! Whom a client trusts: certificates that it knows by their fingerprints, and authorities.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::tls;
use crate::tls::{Fingerprint, PemError};

/// The client's rules for certificates, and its own certificate.
///
/// The default trusts the authorities of the system and nobody else.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// By host and port.
    known: BTreeMap<String, Fingerprint>,
    only: Option<Fingerprint>,
    authorities: Vec<CertificateDer<'static>>,
    pub(super) own: Option<Arc<SingleCertAndKey>>,
}

impl Trust {
    /// Trusts the server at `address`, which is host and port, by its certificate. Should it show
    /// another one, it has to be vouched for by an authority.
    #[must_use]
    pub fn with_known(mut self, address: impl Into<String>, fingerprint: Fingerprint) -> Self {
        self.known.insert(address.into(), fingerprint);
        self
    }

    /// Trusts this certificate alone, whatever else is known and whoever vouches for others.
    #[must_use]
    pub fn with_only(mut self, fingerprint: Fingerprint) -> Self {
        self.only = Some(fingerprint);
        self
    }

    /// Trusts the authorities in a PEM file, too. A server for which none of them nor one of the
    /// system vouches is then refused, unless it is known.
    ///
    /// # Errors
    /// [`PemError`] if there is no certificate in it.
    pub fn with_authorities(mut self, pem: &[u8]) -> Result<Self, PemError> {
        self.authorities.extend(tls::certificates(pem)?);
        Ok(self)
    }

    /// Shows a certificate to servers that ask for one: PEM files of the certificate and its key,
    /// which may be the same.
    ///
    /// # Errors
    /// [`PemError`] if one of them is missing, or the key is another's.
    pub fn with_own_certificate(
        mut self,
        certificate: &[u8],
        key: &[u8],
    ) -> Result<Self, PemError> {
        let chain = tls::certificates(certificate)?;
        let key = tls::private_key(key)?;
        let own = CertifiedKey::from_der(chain, key, &tls::provider());
        let own = own.map_err(|_| PemError::WrongKey)?;
        self.own = Some(Arc::new(own.into()));
        Ok(self)
    }

    /// Whether a certificate could be trusted without asking the authorities of the system.
    pub(super) fn knows(&self, address: &str) -> bool {
        self.only.is_some() || self.known.contains_key(address)
    }

    /// The verifier of the certificate of the server at `address`.
    pub(super) fn judge(&self, address: &str, system: &[CertificateDer<'static>]) -> Judge {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities.iter().chain(system).cloned());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        Judge {
            known: self.known.get(address).copied(),
            only: self.only,
            strict: !self.authorities.is_empty(),
            // There is none without any authority.
            authorities: builder.build().ok(),
        }
    }
}

/// Why a server's certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("unknown")]
    Unknown { fingerprint: Fingerprint },
    #[error("changed")]
    Changed {
        expected: Fingerprint,
        got: Fingerprint,
    },
    #[error("not the one")]
    NotTheOne {
        expected: Fingerprint,
        got: Fingerprint,
    },
    #[error("{reason}")]
    Uncertified {
        reason: String,
        fingerprint: Fingerprint,
    },
}

/// Decides about the certificate of one server.
#[derive(Debug)]
pub(super) struct Judge {
    known: Option<Fingerprint>,
    only: Option<Fingerprint>,
    /// Whether an authority has to vouch for who is not known.
    strict: bool,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl Judge {
    /// `vouched` is what the authorities say.
    fn decide(
        &self,
        fingerprint: Fingerprint,
        vouched: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Distrust> {
        match self.only {
            Some(expected) if expected == fingerprint => return Ok(()),
            Some(expected) => {
                return Err(Distrust::NotTheOne {
                    expected,
                    got: fingerprint,
                });
            }
            None => {}
        }
        if self.known == Some(fingerprint) {
            return Ok(());
        }
        let Err(error) = vouched() else {
            return Ok(());
        };
        match self.known {
            Some(expected) => Err(Distrust::Changed {
                expected,
                got: fingerprint,
            }),
            None if self.strict || is_clear(&error) => Err(Distrust::Uncertified {
                reason: match error {
                    Error::InvalidCertificate(error) => error.to_string(),
                    error => error.to_string(),
                },
                fingerprint,
            }),
            None => Err(Distrust::Unknown { fingerprint }),
        }
    }
}

/// Whether the reason says more than that nobody vouches for the certificate.
fn is_clear(error: &Error) -> bool {
    use CertificateError as E;
    matches!(
        error,
        Error::InvalidCertificate(
            E::Expired
                | E::ExpiredContext { .. }
                | E::NotValidYet
                | E::NotValidYetContext { .. }
                | E::NotValidForName
                | E::NotValidForNameContext { .. }
                | E::Revoked
        )
    )
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = || match &self.authorities {
            Some(authorities) => authorities
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_| ()),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        match self.decide(Fingerprint::of_certificate(end_entity), vouched) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(distrust) => Err(CertificateError::Other(OtherError(Arc::new(distrust))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = tls::provider();
        verify_tls12_signature(
            message,
            cert,
            dss,
            &provider.signature_verification_algorithms,
        )
    }

    /// A known certificate alone proves nothing: whoever shows it has to have its key.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let provider = tls::provider();
        verify_tls13_signature(
            message,
            cert,
            dss,
            &provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = tls::provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(of: &str) -> Fingerprint {
        Fingerprint::of_certificate(of.as_bytes())
    }

    fn nobody() -> Result<(), Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn decide(trust: &Trust, vouched: impl FnOnce() -> Result<(), Error>) -> Result<(), Distrust> {
        trust
            .judge("host:9000", &[])
            .decide(fingerprint("new"), vouched)
    }

    #[test]
    fn who_is_not_known_needs_someone_who_vouches() {
        let trust = Trust::default();
        let unknown = Distrust::Unknown {
            fingerprint: fingerprint("new"),
        };
        assert_eq!(decide(&trust, nobody), Err(unknown.clone()));
        assert_eq!(decide(&trust, || Ok(())), Ok(()));
        let elsewhere = trust.with_known("host:9001", fingerprint("new"));
        assert_eq!(decide(&elsewhere, nobody), Err(unknown));
    }

    #[test]
    fn who_is_known_needs_nobody_and_who_has_changed_needs_someone() {
        let same = Trust::default().with_known("host:9000", fingerprint("new"));
        assert_eq!(decide(&same, || panic!("nobody is asked")), Ok(()));
        let other = Trust::default().with_known("host:9000", fingerprint("old"));
        let changed = Distrust::Changed {
            expected: fingerprint("old"),
            got: fingerprint("new"),
        };
        assert_eq!(decide(&other, nobody), Err(changed));
        assert_eq!(decide(&other, || Ok(())), Ok(()));
    }

    #[test]
    fn where_one_certificate_alone_is_trusted_nobody_else_is_asked() {
        let trust = Trust::default().with_known("host:9000", fingerprint("new"));
        let only = trust.with_only(fingerprint("one"));
        let refused = Distrust::NotTheOne {
            expected: fingerprint("one"),
            got: fingerprint("new"),
        };
        assert_eq!(decide(&only, || Ok(())), Err(refused));
        assert_eq!(decide(&only.with_only(fingerprint("new")), nobody), Ok(()));
    }

    #[test]
    fn what_an_authority_says_clearly_is_passed_on() {
        let expired = || Err(CertificateError::Expired.into());
        let said = decide(&Trust::default(), expired);
        assert!(
            matches!(said, Err(Distrust::Uncertified { .. })),
            "{said:?}"
        );
    }
}

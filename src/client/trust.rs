//! The servers that a client trusts: known fingerprints of certificates, and authorities.

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
/// The default trusts the authorities of the system only.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// By host and port.
    known: BTreeMap<String, Fingerprint>,
    only: Option<Fingerprint>,
    authorities: Vec<CertificateDer<'static>>,
    pub(super) own: Option<Arc<SingleCertAndKey>>,
}

impl Trust {
    /// Trusts the server at `address`, which is host and port, by its certificate. Another certificate
    /// of it must be signed by a trusted authority.
    #[must_use]
    pub fn with_known(mut self, address: impl Into<String>, fingerprint: Fingerprint) -> Self {
        self.known.insert(address.into(), fingerprint);
        self
    }

    /// Trusts this certificate only, and neither known ones nor those of authorities.
    #[must_use]
    pub fn with_only(mut self, fingerprint: Fingerprint) -> Self {
        self.only = Some(fingerprint);
        self
    }

    /// Also trusts the authorities in a PEM file. A server whose certificate neither they nor the
    /// authorities of the system have signed is then refused, unless it is known.
    ///
    /// # Errors
    /// [`PemError`] if there is no certificate in it.
    pub fn with_authorities(mut self, pem: &[u8]) -> Result<Self, PemError> {
        self.authorities.extend(tls::certificates(pem)?);
        Ok(self)
    }

    /// Presents a certificate to servers that request one: PEM files of the certificate and its key,
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

    /// Whether a certificate may be trusted without the authorities of the system.
    pub(super) fn knows(&self, address: &str) -> bool {
        self.only.is_some() || self.known.contains_key(address)
    }

    /// The verifier of the certificate of the server at `address`.
    pub(super) fn verifier(
        &self,
        address: &str,
        system: &[CertificateDer<'static>],
    ) -> TrustVerifier {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities.iter().chain(system).cloned());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider());
        TrustVerifier {
            known: self.known.get(address).copied(),
            only: self.only,
            strict: !self.authorities.is_empty(),
            // Building fails if there is no authority.
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
    #[error("not the only trusted certificate")]
    NotTheOnlyTrusted {
        expected: Fingerprint,
        got: Fingerprint,
    },
    #[error("{reason}")]
    UntrustedCertificate {
        reason: String,
        fingerprint: Fingerprint,
    },
}

/// Decides about the certificate of one server.
#[derive(Debug)]
pub(super) struct TrustVerifier {
    known: Option<Fingerprint>,
    only: Option<Fingerprint>,
    /// Whether a server that is not known must have a certificate of an authority.
    strict: bool,
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl TrustVerifier {
    /// `verify` is the verification by the authorities.
    fn decide(
        &self,
        fingerprint: Fingerprint,
        verify: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Distrust> {
        match self.only {
            Some(expected) if expected == fingerprint => return Ok(()),
            Some(expected) => {
                return Err(Distrust::NotTheOnlyTrusted {
                    expected,
                    got: fingerprint,
                });
            }
            None => {}
        }
        if self.known == Some(fingerprint) {
            return Ok(());
        }
        let Err(error) = verify() else {
            return Ok(());
        };
        match self.known {
            Some(expected) => Err(Distrust::Changed {
                expected,
                got: fingerprint,
            }),
            None if self.strict || has_defect(&error) => Err(Distrust::UntrustedCertificate {
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

/// Whether the certificate has a defect other than an unknown issuer.
fn has_defect(error: &Error) -> bool {
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

impl ServerCertVerifier for TrustVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = || match &self.authorities {
            Some(authorities) => authorities
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_| ()),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        match self.decide(Fingerprint::of_certificate(end_entity), verify) {
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

    /// The peer must prove that it has the key: a known certificate alone is public.
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

    fn unknown_issuer() -> Result<(), Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn decide(trust: &Trust, verify: impl FnOnce() -> Result<(), Error>) -> Result<(), Distrust> {
        trust
            .verifier("host:9000", &[])
            .decide(fingerprint("new"), verify)
    }

    #[test]
    fn an_unknown_server_needs_an_authority() {
        let trust = Trust::default();
        let unknown = Distrust::Unknown {
            fingerprint: fingerprint("new"),
        };
        assert_eq!(decide(&trust, unknown_issuer), Err(unknown.clone()));
        assert_eq!(decide(&trust, || Ok(())), Ok(()));
        let elsewhere = trust.with_known("host:9001", fingerprint("new"));
        assert_eq!(decide(&elsewhere, unknown_issuer), Err(unknown));
    }

    #[test]
    fn a_known_server_needs_no_authority_and_a_changed_one_does() {
        let same = Trust::default().with_known("host:9000", fingerprint("new"));
        assert_eq!(decide(&same, || panic!("no authority is needed")), Ok(()));
        let other = Trust::default().with_known("host:9000", fingerprint("old"));
        let changed = Distrust::Changed {
            expected: fingerprint("old"),
            got: fingerprint("new"),
        };
        assert_eq!(decide(&other, unknown_issuer), Err(changed));
        assert_eq!(decide(&other, || Ok(())), Ok(()));
    }

    #[test]
    fn an_only_trusted_certificate_excludes_all_others() {
        let trust = Trust::default().with_known("host:9000", fingerprint("new"));
        let only = trust.with_only(fingerprint("one"));
        let refused = Distrust::NotTheOnlyTrusted {
            expected: fingerprint("one"),
            got: fingerprint("new"),
        };
        assert_eq!(decide(&only, || Ok(())), Err(refused));
        assert_eq!(
            decide(&only.with_only(fingerprint("new")), unknown_issuer),
            Ok(())
        );
    }

    #[test]
    fn a_defect_of_a_certificate_is_reported() {
        let expired = || Err(CertificateError::Expired.into());
        let decision = decide(&Trust::default(), expired);
        assert!(
            matches!(decision, Err(Distrust::UntrustedCertificate { .. })),
            "{decision:?}"
        );
    }
}

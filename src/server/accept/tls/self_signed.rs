//! Creates the self-signed certificate of a server at its first start.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};

use crate::server::accept::tls::error::TlsError;

/// The files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateFiles {
    fn in_directory(directory: &Path) -> Self {
        Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("key.pem"),
        }
    }
}

/// The certificate in the data directory, created if it is missing. Blocks.
pub(crate) fn find_or_create(data: &Path) -> Result<CertificateFiles, TlsError> {
    if let Some(files) = find(data)? {
        return Ok(files);
    }
    let directory = data.join("tls");
    let files = CertificateFiles::in_directory(&directory);
    match create(&directory, &files) {
        Ok(()) => Ok(files),
        Err(reason) => Err(TlsError::Make { directory, reason }),
    }
}

/// The certificate in the data directory, if there is one. Blocks.
pub(crate) fn find(data: &Path) -> Result<Option<CertificateFiles>, TlsError> {
    let files = CertificateFiles::in_directory(&data.join("tls"));
    // The certificate is written last, so a key alone is left over from a crash.
    match (files.certificate.exists(), files.key.exists()) {
        (true, true) => Ok(Some(files)),
        (true, false) => Err(TlsError::HalfThere {
            there: files.certificate,
            missing: files.key,
        }),
        (false, _) => Ok(None),
    }
}

fn create(directory: &Path, files: &CertificateFiles) -> Result<(), String> {
    let (certificate, key) = self_signed().map_err(|error| error.to_string())?;
    let write = || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        write_private(directory, &files.key, &key)?;
        write_private(directory, &files.certificate, &certificate)
    };
    write().map_err(|error| error.to_string())
}

/// A certificate and its key, as PEM. It only names this machine, because clients trust it by its
/// fingerprint.
fn self_signed() -> Result<(String, String), rcgen::Error> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(Into::into).into();
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let is_host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if !host.is_empty() && host != "localhost" && host.chars().all(is_host_char) {
        names.push(host.into_owned());
    }
    // Valid until the year 4096: after an expiry every client would have to trust a new one.
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "haul");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file atomically and durably, readable only by its owner at all times.
fn write_private(directory: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    // `NamedTempFile` creates it with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_for_nobody_else_to_read() {
        let data = tempfile::tempdir().expect("a directory");
        let files = find_or_create(data.path()).expect("made");
        assert_eq!(mode(&files.key), 0o600);
        assert_eq!(mode(&data.path().join("tls")), 0o700);
        let first = fs::read(&files.certificate).expect("readable");
        find_or_create(data.path()).expect("there");
        assert_eq!(fs::read(&files.certificate).expect("readable"), first);
    }

    #[test]
    fn a_certificate_whose_key_is_gone_is_not_replaced_in_silence() {
        let data = tempfile::tempdir().expect("a directory");
        let files = find_or_create(data.path()).expect("made");
        fs::remove_file(&files.key).expect("removed");
        let error = find_or_create(data.path()).expect_err("no key").to_string();
        assert!(
            error.contains("key.pem; restore the missing file"),
            "{error}"
        );
    }

    #[test]
    fn a_key_that_a_crash_left_alone_is_made_anew_with_its_certificate() {
        let data = tempfile::tempdir().expect("a directory");
        let files = find_or_create(data.path()).expect("made");
        fs::remove_file(&files.certificate).expect("removed");
        find_or_create(data.path()).expect("made");
        assert!(files.certificate.exists());
    }
}

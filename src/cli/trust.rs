//! From an address to a connection with a server that is trusted, asking where nobody knows.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::exit::{NoSession, usage};
use crate::cli::help::CONNECTION;
use crate::cli::known_servers::KnownServers;
use crate::cli::own_certificate::OwnCertificate;
use crate::cli::terminal::{is_agreed, is_terminal};
use crate::client::{Client, ClientError, ServerUrl, Trust};
use crate::io_error::describe_io_error;
use crate::tls::{Fingerprint, PemError};

/// The servers to trust, and the client's own certificate.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TrustOptions {
    /// Trust only the server whose certificate has this fingerprint
    #[arg(
        long,
        global = true,
        help_heading = CONNECTION,
        value_name = "FINGERPRINT",
        env = "HAUL_FINGERPRINT",
        hide_env_values = true
    )]
    pub(super) fingerprint: Option<Fingerprint>,
    /// Trust the authorities in this PEM file, as well as those of the system
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE", env = "HAUL_CA", hide_env_values = true)]
    pub(super) ca: Option<PathBuf>,
    /// Log in with the certificate in this PEM file
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE", env = "HAUL_CERT", hide_env_values = true)]
    pub(super) cert: Option<PathBuf>,
    /// The PEM file with the key of that certificate; the default is the same file
    #[arg(long, global = true, help_heading = CONNECTION, value_name = "FILE", env = "HAUL_KEY", hide_env_values = true)]
    pub(super) key: Option<PathBuf>,
}

impl TrustOptions {
    /// The certificate that the options name, with paths that hold in every directory.
    pub(super) fn own_certificate(&self) -> anyhow::Result<Option<OwnCertificate>> {
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(usage("`--key` needs `--cert`")),
            (Some(certificate), key) => Ok(Some(OwnCertificate {
                certificate: std::path::absolute(certificate)?,
                key: std::path::absolute(key.as_ref().unwrap_or(certificate))?,
            })),
        }
    }

    pub(super) fn trust(
        &self,
        url: &ServerUrl,
        own: Option<&OwnCertificate>,
    ) -> anyhow::Result<Trust> {
        if !url.tls {
            return match self.fingerprint {
                Some(_) => Err(usage(
                    "`--fingerprint` needs an encrypted connection; write haul:// in place of haul+plain://",
                )),
                None => Ok(Trust::default()),
            };
        }
        let mut trust = KnownServers::trust(Trust::default(), url)?;
        if let Some(fingerprint) = self.fingerprint {
            trust = trust.with_only(fingerprint);
        }
        if let Some(path) = &self.ca {
            let authorities = trust.with_authorities(&read(path)?);
            trust = authorities.map_err(|error| in_file(path, error))?;
        }
        if let Some(OwnCertificate { certificate, key }) = own {
            let with_own = trust.with_own_certificate(&read(certificate)?, &read(key)?);
            trust = with_own.map_err(|error| match error {
                PemError::NoKey => in_file(key, error),
                _ => in_file(certificate, error),
            })?;
        }
        Ok(trust)
    }
}

/// Connects to the server at `url`, and says whom that trusts. Who is not known is asked about, if
/// there is a terminal.
pub(super) async fn connect(
    options: &TrustOptions,
    url: &ServerUrl,
    own: Option<&OwnCertificate>,
) -> anyhow::Result<(Client, Trust)> {
    let trust = options.trust(url, own)?;
    match Client::connect(url, &trust).await {
        Err(ClientError::UnknownServer {
            address,
            fingerprint,
        }) if is_terminal() => {
            let question = format!(
                "The server at {address} is not known. Its certificate's fingerprint is\n  \
                 {fingerprint}\nTrust it from now on? [y/N] "
            );
            if !is_agreed(question).await? {
                return Err(NoSession::NotTrusted(address).into());
            }
            KnownServers::remember(&address, fingerprint).await?;
            let trust = trust.with_known(address, fingerprint);
            let client = Client::connect(url, &trust).await;
            Ok((client.map_err(NoSession::from)?, trust))
        }
        Err(error @ ClientError::UnknownServer { .. }) => {
            let user = url.user.clone();
            Err(NoSession::UnknownServer { error, user }.into())
        }
        client => Ok((client.map_err(NoSession::from)?, trust)),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        usage(format!(
            "cannot read {}: {}",
            path.display(),
            describe_io_error(&error)
        ))
    })
}

fn in_file(path: &Path, error: PemError) -> anyhow::Error {
    usage(format!("{}: {error}", path.display()))
}

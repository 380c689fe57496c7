//! From an address to a connection with a server that is trusted, asking where nobody knows.

use std::fs;
use std::io::{BufRead, Write, stderr, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tokio::task::spawn_blocking;

use crate::cli::exit::{NoSession, usage};
use crate::cli::known_servers::KnownServers;
use crate::cli::own_certificate::OwnCertificate;
use crate::cli::terminal::is_terminal;
use crate::client::{Client, ClientError, ServerUrl, Trust};
use crate::tls::{Fingerprint, PemError};

/// Which servers to trust, and what to show them.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TrustOptions {
    /// The fingerprint of the server's certificate: that one is trusted and no other.
    #[arg(
        long,
        global = true,
        value_name = "FINGERPRINT",
        env = "HAUL_FINGERPRINT"
    )]
    pub(super) fingerprint: Option<Fingerprint>,
    /// A PEM file with authorities that vouch for servers, beside those of the system.
    #[arg(long, global = true, value_name = "FILE", env = "HAUL_CA")]
    pub(super) ca: Option<PathBuf>,
    /// A PEM file with a certificate of your own, to log in without a password.
    #[arg(long, global = true, value_name = "FILE", env = "HAUL_CERT")]
    pub(super) cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate; by default it is in the same file.
    #[arg(long, global = true, value_name = "FILE", env = "HAUL_KEY")]
    pub(super) key: Option<PathBuf>,
}

/// The names of these options, for the help of commands that have no use for them.
pub(super) const OPTIONS: [&str; 4] = ["fingerprint", "ca", "cert", "key"];

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

    fn trust(&self, url: &ServerUrl, own: Option<&OwnCertificate>) -> anyhow::Result<Trust> {
        if !url.tls {
            return match self.fingerprint {
                Some(_) => Err(usage(
                    "a fingerprint is that of an encrypted server: write haul://",
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
            if !spawn_blocking(move || is_agreed(&question)).await?? {
                return Err(NoSession::NotTrusted(address).into());
            }
            KnownServers::remember(&address, fingerprint).await?;
            let trust = trust.with_known(address, fingerprint);
            let client = Client::connect(url, &trust).await;
            Ok((client.map_err(NoSession::from)?, trust))
        }
        client => Ok((client.map_err(NoSession::from)?, trust)),
    }
}

fn is_agreed(question: &str) -> anyhow::Result<bool> {
    write!(stderr(), "{question}")?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).context("no answer")?;
    let answer = answer.trim().to_ascii_lowercase();
    Ok(matches!(&*answer, "y" | "yes"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).map_err(|error| usage(format!("could not read {}: {error}", path.display())))
}

fn in_file(path: &Path, error: PemError) -> anyhow::Error {
    usage(format!("{}: {error}", path.display()))
}

//! TLS: the handshake on the common port, certificates of servers and clients, and the trust of
//! clients.

pub(crate) mod authority;
mod logins;
mod server;
pub(crate) mod terminal;
mod trust;

use std::fs;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{PASSWORD, RawClient, TestServer};

/// A client of raw frames inside TLS.
pub(crate) type TlsClient = RawClient<TlsStream<TcpStream>>;

impl TestServer {
    /// The self-signed certificate of the server, as PEM.
    pub(crate) fn own_certificate(&self) -> Vec<u8> {
        fs::read(self.data().join("tls/certificate.pem")).expect("made")
    }

    /// A TLS connection on which nothing has been sent yet.
    pub(crate) async fn connect_tls(&self) -> TlsClient {
        let config = trusting(&self.own_certificate()).with_no_client_auth();
        RawClient::new(self.handshake(config).await.expect("a handshake"))
    }

    /// A session of `user` inside TLS.
    pub(crate) async fn log_in_tls(&self, user: &str) -> TlsClient {
        let mut client = self.connect_tls().await;
        client
            .ok(json!({"cmd": "login", "user": user, "password": PASSWORD}))
            .await;
        client
    }

    async fn handshake(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// The TLS settings of a client that trusts this certificate and those that it has signed.
fn trusting(pem: &[u8]) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pem).expect("a certificate");
    roots.add(certificate).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
}

/// The TLS settings of a client with a certificate.
fn showing(server: &[u8], certificate: &str, key: &str) -> ClientConfig {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("one")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    trusting(server)
        .with_client_auth_cert(chain, key)
        .expect("its key")
}

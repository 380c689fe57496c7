//! A proxy that closes its connections on request.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::TestServer;

/// A proxy to the server that closes its connections whenever the number changes.
pub(super) async fn proxy_with_cuts(server: &TestServer, cuts: watch::Receiver<u32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server.address;
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let mut cuts = cuts.clone();
            cuts.mark_unchanged();
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(server).await.expect("the server");
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {}
                    _ = cuts.changed() => {}
                }
            });
        }
    });
    address.to_string()
}

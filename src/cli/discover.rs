//! `haul discover`

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::lookup_host;

use crate::cli::exit::{Reported, usage};
use crate::cli::output::{Output, safe};
use crate::cli::table::table;
use crate::client::{DiscoveredServer, discover, neighbourhood};
use crate::protocol::DEFAULT_PORT;

/// Find servers in the local network
///
/// Asks this machine and all hosts in its networks, or only the given addresses. The answers are not
/// authenticated: `haul connect` checks the server's certificate.
#[derive(Debug, Args)]
pub(super) struct DiscoverArgs {
    /// The port to ask on
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// How long to wait for answers
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    wait: Duration,
    /// Hosts or broadcast addresses to ask, each with an optional port
    #[arg(value_name = "ADDR")]
    addresses: Vec<String>,
}

impl DiscoverArgs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<()> {
        let mut addresses = Vec::new();
        for text in &self.addresses {
            addresses.extend(resolve(text, self.port).await?);
        }
        if self.addresses.is_empty() {
            addresses = neighbourhood(self.port);
        }
        let found = discover(&addresses, self.wait).await;
        let found = found.context("cannot send the search")?;
        if found.is_empty() {
            output.note("no server answered");
            return Err(Reported.into());
        }
        output.list(&found, || listing(&found))
    }
}

fn listing(found: &[DiscoveredServer]) -> String {
    let rows: Vec<_> = found
        .iter()
        .map(|found| {
            [
                found.address.to_string(),
                safe(&found.name).into_owned(),
                safe(&found.server).into_owned(),
            ]
        })
        .collect();
    table(["ADDRESS", "NAME", "VERSION"], &rows)
}

/// Resolves an IP address or host name, with or without a port.
async fn resolve(text: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, number)) => {
            let number_text = number;
            let number = number.parse();
            (
                host,
                number.map_err(|_| usage(format!("{text}: {number_text} is not a port")))?,
            )
        }
        None => (text, port),
    };
    let addresses = lookup_host((host, port)).await;
    Ok(addresses
        .with_context(|| format!("cannot find the host {host}"))?
        .collect())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    if (0.0..=3600.0).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err("must be from 0 to 3600 seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("192.0.2.255", "192.0.2.255:9000"),
            ("192.0.2.1:9001", "192.0.2.1:9001"),
            ("::1", "[::1]:9000"),
            ("[::1]", "[::1]:9000"),
            ("[::1]:9001", "[::1]:9001"),
        ] {
            let addresses = resolve(text, 9000).await.expect(text);
            assert_eq!(addresses, [expected.parse().expect("an address")]);
        }
        let local = resolve("localhost:9001", 9000).await.expect("it is known");
        assert!(local.iter().all(|address| address.port() == 9001));
        assert!(resolve("attic:x", 9000).await.is_err());
    }

    #[test]
    fn names_from_the_network_cannot_drive_the_terminal() {
        let found = DiscoveredServer {
            address: "192.0.2.1:9000".parse().expect("an address"),
            name: "a\x1b[31mb".into(),
            server: "haul/0\n".into(),
            protocol: 1,
        };
        assert_eq!(
            listing(&[found]),
            "ADDRESS         NAME          VERSION\n\
             192.0.2.1:9000  a\\u{1b}[31mb  haul/0\\n"
        );
    }

    #[test]
    fn a_wait_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("x").is_err());
    }
}

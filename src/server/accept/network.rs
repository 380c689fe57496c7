//! Who may connect at all, by network.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Network;

/// Whether an address may connect: it is not denied, and it is allowed if that is asked for.
pub(crate) fn admits(network: &Network, address: IpAddr) -> bool {
    let within = |networks: &[IpNet]| is_within(networks, address);
    !within(&network.deny) && (network.allow.is_empty() || within(&network.allow))
}

/// Whether one of the networks holds the address. IPv4 that came as IPv6 is IPv4.
pub(crate) fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(allow: &[&str], deny: &[&str]) -> Network {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        Network {
            allow: parse(allow),
            deny: parse(deny),
            ..Network::default()
        }
    }

    fn admitted(network: &Network, address: &str) -> bool {
        admits(network, address.parse().expect("an address"))
    }

    #[test]
    fn without_lists_everyone_may_connect() {
        let open = network(&[], &[]);
        assert!(admitted(&open, "192.0.2.1") && admitted(&open, "2001:db8::1"));
    }

    #[test]
    fn deny_beats_allow_and_an_allow_list_shuts_out_the_rest() {
        let office = network(&["10.0.0.0/8", "2001:db8::/32"], &["10.6.0.0/16"]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.6.1.2", false),
            ("::ffff:10.6.1.2", false),
            ("192.0.2.1", false),
            ("2001:db8:7::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(admitted(&office, address), expected, "{address}");
        }
    }
}

//! Allow and deny lists of networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::NetworkSettings;

/// Whether an address may connect: no deny entry contains it, and an allow entry does if there are any.
pub(crate) fn is_network_allowed(network: &NetworkSettings, address: IpAddr) -> bool {
    let within = |networks: &[IpNet]| contains_address(networks, address);
    !within(&network.deny) && (network.allow.is_empty() || within(&network.allow))
}

/// Whether one of the networks contains the address. An IPv4-mapped IPv6 address counts as IPv4.
pub(crate) fn contains_address(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(allow: &[&str], deny: &[&str]) -> NetworkSettings {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        NetworkSettings {
            allow: parse(allow),
            deny: parse(deny),
            ..NetworkSettings::default()
        }
    }

    fn admitted(network: &NetworkSettings, address: &str) -> bool {
        is_network_allowed(network, address.parse().expect("an address"))
    }

    #[test]
    fn without_lists_every_address_may_connect() {
        let open = network(&[], &[]);
        assert!(admitted(&open, "192.0.2.1") && admitted(&open, "2001:db8::1"));
    }

    #[test]
    fn deny_overrides_allow_and_an_allow_list_refuses_all_other_addresses() {
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

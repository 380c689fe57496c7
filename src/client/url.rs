//! The address of a server and the user of a login: `haul://alice@files.example.org:9000`.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use crate::protocol::DEFAULT_PORT;

/// The address of a server, with the user if it names one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// Whether the connection is to be encrypted: `haul://` is, `haul+plain://` is not.
    pub tls: bool,
    /// The user.
    pub user: Option<String>,
    /// A name or an address; an IPv6 address has no brackets here.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The text is not the address of a haul server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use the address {text:?}: {why}; write haul://USER@HOST:PORT")]
pub struct InvalidUrl {
    text: String,
    why: &'static str,
}

const TLS: &str = "haul";
const PLAIN: &str = "haul+plain";

impl ServerUrl {
    /// Host and port, as a resolver takes them and as messages show them.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", if self.tls { TLS } else { PLAIN })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.address())
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    /// Parses an address. Without a scheme it is `haul://`, without a port [`DEFAULT_PORT`].
    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let refuse = |why| InvalidUrl {
            // A password in the address must not appear in a message.
            text: match text.rsplit_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => text.into(),
            },
            why,
        };
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("{TLS}://{text}"))
        }
        .map_err(|error| match error {
            url::ParseError::InvalidPort => refuse(invalid_port(text)),
            url::ParseError::EmptyHost => refuse("the host is missing"),
            url::ParseError::InvalidIpv4Address | url::ParseError::InvalidIpv6Address => {
                refuse("the IP address is wrong")
            }
            _ => refuse("it has a character that no address has"),
        })?;
        let tls = match url.scheme() {
            TLS => true,
            PLAIN => false,
            _ => return Err(refuse("the scheme is neither haul nor haul+plain")),
        };
        if url.password().is_some() {
            return Err(refuse("an address must not contain a password"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("nothing may follow the port"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(Host::Domain(name)) if is_plain(name) => name.to_ascii_lowercase(),
            Some(Host::Ipv4(address)) => address.to_string(),
            _ => return Err(refuse("the host is missing")),
        };
        let user = match url.username() {
            "" => None,
            user if is_plain(user) => Some(user.to_owned()),
            _ => {
                return Err(refuse(
                    "a user name may only have letters, digits, `.`, `_` and `-`",
                ));
            }
        };
        Ok(Self {
            tls,
            user,
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
        })
    }
}

/// The problem with the port in an address.
fn invalid_port(text: &str) -> &'static str {
    let port = text
        .trim_end_matches('/')
        .rsplit_once(':')
        .map(|(_, port)| port);
    match port.map(str::parse::<u64>) {
        Some(Ok(65_536..)) => "the port is over 65535",
        _ => "the port is not a number",
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<ServerUrl>().expect(text).to_string()
    }

    #[test]
    fn an_address_reads_back_as_it_is_written() {
        for url in [
            "haul://alice@files.example.org:9000",
            "haul+plain://127.0.0.1:1234",
            "haul+plain://bob.b_2-x@[::1]:9000",
        ] {
            assert_eq!(shown(url), url);
        }
    }

    #[test]
    fn scheme_port_and_final_slash_may_be_left_out() {
        assert_eq!(shown("localhost"), "haul://localhost:9000");
        assert_eq!(shown("alice@Box:81/"), "haul://alice@box:81");
        assert_eq!(shown("haul+plain://[::1]/"), "haul+plain://[::1]:9000");
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for text in [
            "",
            "haul://",
            "http://host",
            "haul://host/path",
            "haul://host?q",
            "haul://host:99999",
            "haul://a%2fb@host",
            "haul://h%41st",
        ] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_repeated() {
        let error = "haul://alice:hunter2@host"
            .parse::<ServerUrl>()
            .expect_err("a password");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        for (text, why) in [
            ("haul://host:99999", "the port is over 65535"),
            ("haul://host:9x", "the port is not a number"),
            ("http://host", "the scheme is neither haul nor haul+plain"),
            ("haul://", "the host is missing"),
        ] {
            let error = text.parse::<ServerUrl>().expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

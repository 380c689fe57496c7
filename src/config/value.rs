//! The valid values of settings, with an error message for people for each kind.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserializer;
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The largest count. It keeps a typing error from creating huge queues or tables.
const MAX_COUNT: i64 = 1_000_000;

/// The longest duration. A point in time plus this duration never overflows.
const MAX_DURATION: Duration = Duration::from_hours(8760);

/// A count of at least 1.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(CountVisitor)
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 1 to {MAX_COUNT}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
        usize::try_from(number)
            .ok()
            .filter(|_| (1..=MAX_COUNT).contains(&number))
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// A count of at least 0.
pub(crate) fn count_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_any(CountOrZeroVisitor)
}

struct CountOrZeroVisitor;

impl Visitor<'_> for CountOrZeroVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MAX_COUNT}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
        usize::try_from(number)
            .ok()
            .filter(|_| (0..=MAX_COUNT).contains(&number))
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// On or off.
pub(crate) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_any(SwitchVisitor)
}

struct SwitchVisitor;

impl Visitor<'_> for SwitchVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<bool, E> {
        Ok(on)
    }
}

/// A setting that is text in the file. `parse` returns `None` for an invalid value.
struct TextVisitor<F> {
    expected: &'static str,
    parse: F,
}

impl<T, F: FnOnce(&str) -> Option<T>> TextVisitor<F> {
    fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self.expected))
    }
}

/// An IP address and a port.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = TextVisitor {
        expected: "an address and port such as \"0.0.0.0:9000\"",
        parse: |text: &str| text.parse().ok(),
    };
    text.read(deserializer)
}

/// A path that is not empty.
pub(crate) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let text = TextVisitor {
        expected: "a path",
        parse: |text: &str| (!text.is_empty()).then(|| PathBuf::from(text)),
    };
    text.read(deserializer)
}

/// Whether `text` is a valid log filter in which each directive without a target is a level. The
/// filter itself takes a misspelt level for a target, and logs nothing.
#[must_use]
pub fn is_log_level(text: &str) -> bool {
    if text.len() > MAX_LOG_LEVEL_BYTES {
        return false;
    }
    let mut plain = text
        .split(',')
        .filter(|part| !part.contains(['=', '[', ']']));
    plain.all(|part| part.trim().parse::<LevelFilter>().is_ok()) && EnvFilter::try_new(text).is_ok()
}

/// The most bytes of `log.level`.
const MAX_LOG_LEVEL_BYTES: usize = 4096;

/// A log filter.
pub(crate) fn log_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = TextVisitor {
        expected: "error, warn, info, debug or trace, \
                   with exceptions after commas, such as \"info,haul::server=debug\"",
        parse: |text: &str| is_log_level(text).then(|| text.to_owned()),
    };
    text.read(deserializer)
}

/// A duration above zero.
pub(crate) mod duration {
    pub(crate) use jiff::fmt::serde::unsigned_duration::friendly::compact::required::serialize;

    use std::time::Duration;

    use jiff::SignedDuration;
    use serde::Deserializer;

    use crate::config::value::{MAX_DURATION, TextVisitor};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = TextVisitor {
            expected: "a duration such as \"30s\", at most \"8760h\"",
            parse: |text: &str| {
                let duration = text.parse::<SignedDuration>().ok()?;
                let duration = Duration::try_from(duration).ok()?;
                (!duration.is_zero() && duration <= MAX_DURATION).then_some(duration)
            },
        };
        text.read(deserializer)
    }
}

/// A duration, or `"0s"` for none.
pub(crate) mod duration_or_zero {
    use jiff::fmt::serde::unsigned_duration::friendly::compact;
    use serde::Serializer;

    use std::time::Duration;

    use jiff::SignedDuration;
    use serde::Deserializer;

    use crate::config::value::{MAX_DURATION, TextVisitor};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        compact::required::serialize(&duration.unwrap_or_default(), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = TextVisitor {
            expected: "a duration such as \"30m\", at most \"8760h\", or \"0s\" for none",
            parse: |text: &str| {
                let duration = text.parse::<SignedDuration>().ok()?;
                let duration = Duration::try_from(duration).ok()?;
                let some = Some(duration).filter(|duration| !duration.is_zero());
                (duration <= MAX_DURATION).then_some(some)
            },
        };
        text.read(deserializer)
    }
}

/// A number of bytes.
pub(crate) mod bytes {
    use bytesize::ByteSize;
    use serde::Serializer;

    use serde::Deserializer;

    use crate::config::value::TextVisitor;

    /// More than any disk has, but still a valid number in the protocol.
    const MOST: u64 = 1 << 52;

    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |unit: &&(u64, &str)| *bytes > 0 && bytes.is_multiple_of(unit.0);
        match UNITS.iter().find(whole) {
            Some((unit, name)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = TextVisitor {
            expected: "a size such as \"64MiB\", at most \"4096TiB\"",
            parse: |text: &str| {
                let bytes = text.parse::<ByteSize>().ok()?.as_u64();
                (bytes <= MOST).then_some(bytes)
            },
        };
        text.read(deserializer)
    }
}

/// A list of networks. An address without a prefix length is a network of one address.
pub(crate) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    deserializer.deserialize_any(NetworksVisitor)
}

struct NetworksVisitor;

impl<'de> Visitor<'de> for NetworksVisitor {
    type Value = Vec<IpNet>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of networks such as [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.1\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<IpNet>, A::Error> {
        let mut networks = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            let network = network(&text)
                .ok_or_else(|| A::Error::invalid_value(Unexpected::Str(&text), &self))?;
            networks.push(network);
        }
        Ok(networks)
    }
}

/// Parses a network. Maps IPv4 addresses in IPv6 form to IPv4, as clients' addresses are.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let network = text.parse::<IpNet>().ok()?.trunc();
    match (network.addr().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(address), length @ 96..) if network.addr().is_ipv6() => {
            IpNet::new(address.into(), length - 96).ok()
        }
        _ => Some(network),
    }
}

/// An IP address and a port, or `""` for none.
pub(crate) mod optional_address {
    use serde::Serializer;

    use std::net::SocketAddr;

    use serde::Deserializer;

    use crate::config::value::TextVisitor;

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = TextVisitor {
            expected: "an address and port such as \"127.0.0.1:9001\", or \"\" for none",
            parse: |text: &str| match text {
                "" => Some(None),
                text => text.parse().ok().map(Some),
            },
        };
        text.read(deserializer)
    }
}

/// A path, or `""` for none.
pub(crate) mod optional_path {
    use serde::Serializer;

    use std::path::PathBuf;

    use serde::Deserialize;
    use serde::Deserializer;

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = path.as_deref().map(std::path::Path::to_string_lossy);
        serializer.serialize_str(&text.unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
    }
}

/// Bytes per second, or `""` for no limit.
pub(crate) mod rate {
    use bytesize::ByteSize;
    use serde::Serializer;

    use serde::Deserializer;

    use crate::config::value::TextVisitor;

    /// At a lower rate, a frame could take longer than the peer waits for it.
    const LEAST: u64 = 64 * 1024;

    /// Faster than any network. Computations with it cannot overflow.
    const MOST: u64 = 1 << 40;

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        rate: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = match *rate {
            None => String::new(),
            Some(bytes) if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
            Some(bytes) if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
            Some(bytes) => bytes.to_string(),
        };
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        let text = TextVisitor {
            expected: "bytes per second such as \"10MiB\", from \"64KiB\" to \"1TiB\", or \"\" for no limit",
            parse: |text: &str| {
                if text.is_empty() || text == "0" {
                    return Some(None);
                }
                let bytes = text.parse::<ByteSize>().ok()?.as_u64();
                (LEAST..=MOST).contains(&bytes).then_some(Some(bytes))
            },
        };
        text.read(deserializer)
    }
}

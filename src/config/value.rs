//! The valid values of settings, with an error message for people for each kind.
//!
//! The message of a rejected value is the end of a sentence that begins with the setting and the value:
//! "limits.sessions is 0, but must be a whole number from 1 to 1000000".

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{Span, SpanRelativeTo};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use toml::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The largest count. It keeps a typing error from creating huge queues or tables.
const MAX_COUNT: i64 = 1_000_000;

const DAY: Duration = Duration::from_hours(24);

/// The longest duration. A point in time plus this duration never overflows.
const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Reads a value of any type; `parse` returns `None` for an invalid one.
fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &str,
    parse: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    parse(&value).ok_or_else(|| D::Error::custom(format_args!("must be {expected}")))
}

/// Reads a text; `parse` returns `None` for an invalid one.
pub(super) fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    read(deserializer, expected, |value| parse(value.as_str()?))
}

/// A count of at least 1.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_from(1, deserializer)
}

/// A count of at least 0.
pub(crate) fn count_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    count_from(0, deserializer)
}

fn count_from<'de, D: Deserializer<'de>>(min: i64, deserializer: D) -> Result<usize, D::Error> {
    let expected = format!("a whole number from {min} to {MAX_COUNT}");
    read(deserializer, &expected, |value| {
        let number = value.as_integer()?;
        let in_range = (min..=MAX_COUNT).contains(&number);
        in_range.then(|| usize::try_from(number).ok()).flatten()
    })
}

/// On or off.
pub(crate) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    read(deserializer, "true or false", Value::as_bool)
}

/// An IP address and a port.
pub(crate) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let address = text(deserializer, "an address in quotes", |text| {
        Some(text.to_owned())
    })?;
    parse_address(&address).map_err(D::Error::custom)
}

/// Parses an IP address and a port.
///
/// # Errors
/// The end of a sentence about the text, such as "port 99999 is over 65535".
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("has no port; write {}", SocketAddr::new(ip, 9000)));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match port.parse::<u64>() {
        Ok(port) if port > u64::from(u16::MAX) => Err(format!("port {port} is over {}", u16::MAX)),
        Ok(port) if host.is_empty() => Err(format!("has no IP address; write 0.0.0.0:{port}")),
        _ => Err("must be an IP address and a port such as 0.0.0.0:9000".into()),
    }
}

/// A path that is not empty.
pub(crate) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    text(deserializer, "a path", |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })
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
    let expected = "error, warn, info, debug or trace, \
                    with exceptions after commas, such as \"info,haul::server=debug\"";
    text(deserializer, expected, |text| {
        is_log_level(text).then(|| text.to_owned())
    })
}

/// Parses a duration such as "1h 30m" or "2w". A day has 24 hours.
fn parse_duration(text: &str) -> Option<Duration> {
    let span = text.parse::<Span>().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    let duration = Duration::try_from(duration).ok()?;
    (duration <= MAX_DURATION).then_some(duration)
}

/// A duration above zero.
pub(crate) mod duration {
    use std::time::Duration;

    use jiff::fmt::serde::unsigned_duration::friendly::compact;
    use serde::{Deserializer, Serializer};

    use crate::config::value::{DAY, parse_duration, text};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let days = duration.as_secs() / DAY.as_secs();
        if days > 1 && *duration == DAY * u32::try_from(days).unwrap_or(0) {
            return serializer.collect_str(&format_args!("{days}d"));
        }
        compact::required::serialize(duration, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let expected = "a duration such as \"30s\" or \"7d\", at most \"365d\"";
        text(deserializer, expected, |text| {
            parse_duration(text).filter(|duration| !duration.is_zero())
        })
    }
}

/// A duration, or `"0s"` for none.
pub(crate) mod duration_or_zero {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use crate::config::value::{duration, parse_duration, text};

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration::serialize(&duration.unwrap_or_default(), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let expected = "a duration such as \"30m\", at most \"365d\", or \"0s\" for none";
        text(deserializer, expected, |text| {
            parse_duration(text)
                .map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
        })
    }
}

/// A number of bytes.
pub(crate) mod bytes {
    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer};

    use crate::config::value::text;

    /// More than any disk has, but still a valid number in the protocol.
    const MAX_BYTES: u64 = 1 << 52;

    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        let is_multiple = |unit: &&(u64, &str)| *bytes > 0 && bytes.is_multiple_of(unit.0);
        match UNITS.iter().find(is_multiple) {
            Some((unit, name)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let expected = "a size such as \"64MiB\", at most \"4096TiB\"";
        text(deserializer, expected, |text| {
            let bytes = text.parse::<ByteSize>().ok()?.as_u64();
            (bytes <= MAX_BYTES).then_some(bytes)
        })
    }
}

/// A list of networks. An address without a prefix length is a network of one address.
pub(crate) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let list = read(deserializer, "a list of networks", |value| {
        value.as_array().cloned()
    })?;
    let parse = |item: &Value| {
        item.as_str().and_then(network).ok_or_else(|| {
            D::Error::custom(format_args!(
                "{item} is not a network such as \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.1\""
            ))
        })
    };
    list.iter().map(parse).collect()
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
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    use crate::config::value::{parse_address, text};

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
        let expected = "an address in quotes, or \"\" for none";
        let address = text(deserializer, expected, |text| Some(text.to_owned()))?;
        if address.is_empty() {
            return Ok(None);
        }
        parse_address(&address).map(Some).map_err(D::Error::custom)
    }
}

/// A path, or `""` for none.
pub(crate) mod optional_path {
    use std::path::{Path, PathBuf};

    use serde::{Deserializer, Serializer};

    use crate::config::value::text;

    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = path.as_deref().map(Path::to_string_lossy);
        serializer.serialize_str(&text.unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        text(deserializer, "a path, or \"\" for none", |text| {
            Some((!text.is_empty()).then(|| PathBuf::from(text)))
        })
    }
}

/// Bytes per second, or `""` for no limit.
pub(crate) mod rate {
    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer};

    use crate::config::value::text;

    /// At a lower rate, a frame could take longer than the peer waits for it.
    const MIN_RATE: u64 = 64 * 1024;

    /// Faster than any network. Computations with it cannot overflow.
    const MAX_RATE: u64 = 1 << 40;

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
        let expected = "bytes per second such as \"10MiB\", from \"64KiB\" to \"1TiB\", \
                        or \"\" for no limit";
        text(deserializer, expected, |text| {
            if text.is_empty() || text == "0" {
                return Some(None);
            }
            let bytes = text.parse::<ByteSize>().ok()?.as_u64();
            (MIN_RATE..=MAX_RATE)
                .contains(&bytes)
                .then_some(Some(bytes))
        })
    }
}

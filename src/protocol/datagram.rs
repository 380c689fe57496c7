//! Datagrams: requests, replies and events of one packet each, without a connection.
//!
//! ```text
//! datagram = hello | signed                    at most 1200 bytes
//! hello    = {"cmd":"hello","pad":"…"}         answered {"server":…,"name":…,"protocol":1,"port":…}
//! signed   = json "\n" hmac                    hmac: 64 hex digits, lower case
//! hmac     = HMAC-SHA256 (RFC 2104) of the bytes of json, keyed by the secret of a ticket
//! ```
//!
//! Both directions are signed with the same key. A datagram that is reflected to its sender is invalid
//! there: only those of clients name a ticket, only those of servers have `ok`, `error` or `event`.
//!
//! No reply is longer than its request, so that a forged source address cannot multiply traffic. A
//! request has a `pad`, which is ignored, to be long enough for its reply.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::protocol::message::{encode_error, encode_ok};
use crate::protocol::parse::fields;
use crate::protocol::{
    BadRequest, Call, CommandInfo, Nothing, Say, Secret, VERSION, WhoReply, WireError,
};

/// The longest datagram in bytes. It passes every common network without fragmentation.
pub const MAX_DATAGRAM: usize = 1200;

/// The bytes after the JSON of a signed datagram: the line break and the digits.
pub const SIGNATURE: usize = 1 + 2 * TAG;

/// Bytes of an HMAC-SHA256.
const TAG: usize = 32;

/// The longest name of a ticket, in bytes.
const MAX_TICKET: usize = 64;

/// The secret of a ticket, as a key.
#[derive(Clone, PartialEq, Eq)]
pub struct DatagramKey([u8; TAG]);

impl DatagramKey {
    /// A key of random bytes.
    #[must_use]
    pub fn new(bytes: [u8; TAG]) -> Self {
        Self(bytes)
    }

    /// Parses the form of [`Self::secret`].
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        digits(secret.expose().as_bytes()).map(Self)
    }

    /// The key in its form on the wire, 64 hex digits.
    #[must_use]
    pub fn secret(&self) -> Secret {
        Secret::new(HEXLOWER.encode(&self.0))
    }

    /// The datagram of `json`.
    #[must_use]
    pub fn sign(&self, json: &[u8]) -> Vec<u8> {
        let tag = self.hmac(json).finalize().into_bytes();
        let mut datagram = Vec::with_capacity(json.len() + SIGNATURE);
        datagram.extend_from_slice(json);
        datagram.push(b'\n');
        datagram.extend_from_slice(HEXLOWER.encode(&tag).as_bytes());
        datagram
    }

    /// The JSON of a datagram, if it was signed with this key.
    #[must_use]
    pub fn open<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (json, tag) = split(datagram)?;
        self.is_of(json, &tag).then_some(json)
    }

    /// Takes the same time whatever the digits are.
    fn is_of(&self, json: &[u8], tag: &[u8; TAG]) -> bool {
        self.hmac(json).verify_slice(tag).is_ok()
    }

    fn hmac(&self, json: &[u8]) -> Hmac<Sha256> {
        let mut hmac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("any length is a key");
        hmac.update(json);
        hmac
    }
}

impl fmt::Debug for DatagramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A datagram that may have come from a client.
#[derive(Debug)]
pub enum Datagram<'a> {
    /// A search for servers.
    Hello,
    /// A datagram that names a ticket. Its signature is not verified.
    Signed(Signed<'a>),
}

impl<'a> Datagram<'a> {
    /// Parses a datagram; `None` if it has none of the forms. The work is bounded by its length. A
    /// datagram that is too long is not parsed.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        // An array also fits a derived struct.
        if datagram.len() > MAX_DATAGRAM || datagram.first() != Some(&b'{') {
            return None;
        }
        if let Some((json, tag)) = split(datagram) {
            let head: DatagramHead = serde_json::from_slice(json).ok()?;
            let named = (1..=MAX_TICKET).contains(&head.ticket.len());
            return named.then_some(Self::Signed(Signed { head, json, tag }));
        }
        let hello: HelloForm = serde_json::from_slice(datagram).ok()?;
        (hello.cmd == "hello").then_some(Self::Hello)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloForm {
    cmd: String,
    #[serde(default, rename = "pad")]
    _pad: String,
}

/// The head of every signed datagram of a client.
#[derive(Debug, Deserialize)]
struct DatagramHead {
    ticket: String,
    id: u32,
    cmd: String,
    #[serde(default, rename = "pad")]
    _pad: String,
}

/// A signed datagram whose signature is not verified.
#[derive(Debug)]
pub struct Signed<'a> {
    head: DatagramHead,
    json: &'a [u8],
    tag: [u8; TAG],
}

impl<'a> Signed<'a> {
    /// The identifier of the ticket that it names.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.head.ticket
    }

    /// Verifies that it was signed with this key.
    #[must_use]
    pub fn verify(self, key: &DatagramKey) -> Option<Verified<'a>> {
        key.is_of(self.json, &self.tag).then_some(Verified(self))
    }
}

/// A verified datagram from the holder of its ticket.
#[derive(Debug)]
pub struct Verified<'a>(Signed<'a>);

impl Verified<'_> {
    /// The id, which the client increases with each new request.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.head.id
    }

    /// Equal for two datagrams if and only if all their bytes are equal.
    #[must_use]
    pub fn tag(&self) -> [u8; TAG] {
        self.0.tag
    }

    /// The most bytes of JSON in its reply.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.0.json.len()
    }

    /// The request.
    ///
    /// # Errors
    /// [`BadRequest`] if `cmd` is not a command for datagrams, or its fields are not exactly those of
    /// the command.
    pub fn request(&self) -> Result<DatagramRequest, BadRequest> {
        let (id, json) = (self.id(), self.0.json);
        let own = |key: &str| !["ticket", "id", "cmd", "pad"].contains(&key);
        match &*self.0.head.cmd {
            "who" => {
                let crate::protocol::Who {} = fields(id, "who", json, own)?;
                Ok(DatagramRequest::Who)
            }
            "say" => Ok(DatagramRequest::Say(fields(id, "say", json, own)?)),
            "ack" => Ok(DatagramRequest::Ack(fields(id, "ack", json, own)?)),
            _ => Err(BadRequest {
                id,
                cmd: None,
                field: Some("cmd".into()),
                message: "by datagram come `who`, `say` and `ack`".into(),
                unsupported: false,
            }),
        }
    }
}

/// The requests that a datagram may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatagramRequest {
    /// As the command of this name.
    Who,
    /// As the command of this name.
    Say(Say),
    /// A message has arrived.
    Ack(Ack),
}

/// `ack`: the event with this `seq` has arrived by datagram, so the server need not send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The `seq` of the event.
    pub seq: u64,
}

impl Call for Ack {
    const COMMAND: CommandInfo = CommandInfo::new("ack", "seq", "an event has arrived by datagram");
    type Reply = Nothing;
}

/// The reply to a `hello` in a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// Name and version of the program, such as `haul/0.1.0`.
    pub server: String,
    /// The name of the server's machine.
    pub name: String,
    /// The version of the wire.
    pub protocol: u32,
    /// The port that accepts connections.
    pub port: u16,
}

impl Discovered {
    /// The reply of a server with this version of the protocol.
    #[must_use]
    pub fn new(server: &str, name: &str, port: u16) -> Self {
        Self {
            server: server.into(),
            name: name.chars().take(64).collect(),
            protocol: VERSION,
            port,
        }
    }

    /// The datagram, if it has at most `max_bytes`, the length of the request.
    ///
    /// # Panics
    /// Never: it is a struct of plain values.
    #[must_use]
    pub fn encode_within(&self, max_bytes: usize) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).expect("plain values");
        (json.len() <= max_bytes).then_some(json)
    }
}

/// The search for servers, padded for the reply.
#[must_use]
pub fn encode_hello() -> Vec<u8> {
    padded(br#"{"cmd":"hello"}"#.to_vec(), 512)
}

/// A request as a datagram, padded to `length` if it is shorter.
///
/// # Errors
/// The length of the datagram, if it exceeds the limit.
///
/// # Panics
/// Never: every request serialises.
pub fn encode_datagram<C: Call>(
    key: &DatagramKey,
    ticket: &str,
    id: u32,
    request: &C,
    length: usize,
) -> Result<Vec<u8>, usize> {
    #[derive(Serialize)]
    struct DatagramEnvelope<'a, C> {
        ticket: &'a str,
        id: u32,
        cmd: &'static str,
        #[serde(flatten)]
        request: &'a C,
    }
    let json = serde_json::to_vec(&DatagramEnvelope {
        ticket,
        id,
        cmd: C::CMD,
        request,
    })
    .expect("a request is a struct of plain values");
    let length = length.min(MAX_DATAGRAM).saturating_sub(SIGNATURE);
    let datagram = key.sign(&padded(json, length));
    match datagram.len() {
        ..=MAX_DATAGRAM => Ok(datagram),
        length => Err(length),
    }
}

/// The object with a `pad`, of `length` bytes in total; unchanged if no pad fits.
fn padded(mut json: Vec<u8>, length: usize) -> Vec<u8> {
    let pad = br#","pad":""}"#.len() - 1;
    if let Some(spaces) = length.checked_sub(json.len() + pad) {
        json.pop();
        json.extend_from_slice(br#","pad":""#);
        json.resize(json.len() + spaces, b'.');
        json.extend_from_slice(br#""}"#);
    }
    json
}

/// The reply to `who` with as many users as fit in `max_bytes`. It is longer only if it has none.
#[must_use]
pub fn encode_who_within(id: u32, who: &WhoReply, max_bytes: usize) -> Bytes {
    let all = encode_ok(id, who);
    if all.len() <= max_bytes {
        return all;
    }
    let mut some = WhoReply {
        users: Vec::new(),
        more: true,
    };
    // A comma comes with each user but the first.
    let mut left = (max_bytes + 1).saturating_sub(encode_ok(id, &some).len());
    for user in &who.users {
        let length = serde_json::to_vec(user).map_or(usize::MAX, |json| json.len() + 1);
        let Some(rest) = left.checked_sub(length) else {
            break;
        };
        left = rest;
        some.users.push(user.clone());
    }
    encode_ok(id, &some)
}

/// The reply with an error, in at most `max_bytes`: the message is cut, then optional fields are
/// omitted. `None` if not even the code fits.
#[must_use]
pub fn encode_error_within(id: u32, error: &WireError, max_bytes: usize) -> Option<Bytes> {
    let mut error = error.clone();
    loop {
        let json = encode_error(id, &error);
        let Some(over) = json.len().checked_sub(max_bytes).filter(|over| *over > 0) else {
            return Some(json);
        };
        if error.message.is_empty() {
            break;
        }
        let mut end = error.message.len().saturating_sub(over);
        while !error.message.is_char_boundary(end) {
            end -= 1;
        }
        error.message.truncate(end);
    }
    let json = encode_error(id, &WireError::new(error.code, ""));
    (json.len() <= max_bytes).then_some(json)
}

/// The JSON and the signature of bytes that have the form of a signed datagram.
fn split(datagram: &[u8]) -> Option<(&[u8], [u8; TAG])> {
    let (json, signature) = datagram.split_at_checked(datagram.len().checked_sub(SIGNATURE)?)?;
    let tag = digits(signature.strip_prefix(b"\n")?)?;
    Some((json, tag))
}

/// 64 hex digits, lower case.
fn digits(text: &[u8]) -> Option<[u8; TAG]> {
    HEXLOWER.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;

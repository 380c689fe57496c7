//! Datagrams: what is said in one packet, without a connection.
//!
//! ```text
//! datagram = hello | signed                    at most 1200 bytes
//! hello    = {"cmd":"hello","pad":"…"}         answered {"server":…,"name":…,"protocol":1,"port":…}
//! signed   = json "\n" hmac                    hmac: 64 hex digits, lower case
//! hmac     = HMAC-SHA256 (RFC 2104) of the bytes of json, keyed by the secret of a ticket
//! ```
//!
//! Both directions are signed with the same key. A datagram that is sent back to where it came from
//! is nothing there: only a client's names a ticket, only a server's has `ok`, `error` or `event`.
//!
//! No answer is longer than what it answers, so that nobody gains by asking in another's name. A
//! request makes room for its reply with `pad`, which means nothing.

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

/// The longest datagram, in bytes: it passes every common network in one piece.
pub const MAX_DATAGRAM: usize = 1200;

/// Bytes behind the JSON of a signed datagram: the line break and the digits.
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

    /// Reads what [`Self::secret`] wrote.
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        digits(secret.expose().as_bytes()).map(Self)
    }

    /// The key as it travels, 64 hex digits.
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
    /// Somebody looks for servers.
    Hello,
    /// Somebody claims to hold a ticket.
    Signed(Signed<'a>),
}

impl<'a> Datagram<'a> {
    /// Reads a datagram; `None` if it is none of the forms. The work is bounded by its length, and
    /// one that is too long is not looked at.
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

/// A signed datagram whose signature nobody has looked at.
#[derive(Debug)]
pub struct Signed<'a> {
    head: DatagramHead,
    json: &'a [u8],
    tag: [u8; TAG],
}

impl<'a> Signed<'a> {
    /// The name of the ticket that it claims to be of.
    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.head.ticket
    }

    /// Goes on only if it was signed with this key.
    #[must_use]
    pub fn verify(self, key: &DatagramKey) -> Option<Verified<'a>> {
        key.is_of(self.json, &self.tag).then_some(Verified(self))
    }
}

/// A signed datagram that came from the holder of its ticket.
#[derive(Debug)]
pub struct Verified<'a>(Signed<'a>);

impl Verified<'_> {
    /// Picked by the client, greater in each new request.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.head.id
    }

    /// Equal for two datagrams if, and only if, all their bytes are.
    #[must_use]
    pub fn tag(&self) -> [u8; TAG] {
        self.0.tag
    }

    /// How long the JSON of its reply may be, in bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.json.len()
    }

    /// The request.
    ///
    /// # Errors
    /// [`BadRequest`] if `cmd` is none of those that come by datagram, or its fields are not
    /// exactly the right ones.
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
    /// As the command.
    Who,
    /// As the command.
    Say(Say),
    /// A message has arrived.
    Ack(Ack),
}

/// `ack`: the event with this `seq` has arrived by datagram; it need not be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// That of the event.
    pub seq: u64,
}

impl Call for Ack {
    const COMMAND: CommandInfo = CommandInfo::new("ack", "seq", "an event has arrived by datagram");
    type Reply = Nothing;
}

/// Answers a `hello` that came by datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// Name and version of the program, such as `haul/0.1.0`.
    pub server: String,
    /// The name of its machine.
    pub name: String,
    /// The version of the wire.
    pub protocol: u32,
    /// The port that takes connections.
    pub port: u16,
}

impl Discovered {
    /// The answer of a server that speaks this version.
    #[must_use]
    pub fn new(server: &str, name: &str, port: u16) -> Self {
        Self {
            server: server.into(),
            name: name.chars().take(64).collect(),
            protocol: VERSION,
            port,
        }
    }

    /// The datagram, if it is not longer than the `room` that the question has taken.
    ///
    /// # Panics
    /// Never: it is a struct of plain values.
    #[must_use]
    pub fn encode_within(&self, room: usize) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).expect("plain values");
        (json.len() <= room).then_some(json)
    }
}

/// The question for servers, with room for the answer.
#[must_use]
pub fn encode_hello() -> Vec<u8> {
    padded(br#"{"cmd":"hello"}"#.to_vec(), 512)
}

/// A request as a datagram, padded to `length` if it is shorter.
///
/// # Errors
/// Its length, if that is more than a datagram may have.
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

/// The object with a `pad`, of `length` bytes in all, or as it is where a pad does not fit.
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

/// The reply to `who` with as many users as fit in `room` bytes; longer only if it has none.
#[must_use]
pub fn encode_who_within(id: u32, who: &WhoReply, room: usize) -> Bytes {
    let all = encode_ok(id, who);
    if all.len() <= room {
        return all;
    }
    let mut some = WhoReply {
        users: Vec::new(),
        more: true,
    };
    // A comma comes with each user but the first.
    let mut left = (room + 1).saturating_sub(encode_ok(id, &some).len());
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

/// The reply with an error of at most `room` bytes: its message is cut off, then what else can be
/// left out is. `None` if not even its code fits.
#[must_use]
pub fn encode_error_within(id: u32, error: &WireError, room: usize) -> Option<Bytes> {
    let mut error = error.clone();
    loop {
        let json = encode_error(id, &error);
        let Some(over) = json.len().checked_sub(room).filter(|over| *over > 0) else {
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
    (json.len() <= room).then_some(json)
}

/// The JSON of what has the form of a signed datagram, and its signature.
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{ErrorCode, Present, ServerMessage, Who};

    fn key() -> DatagramKey {
        DatagramKey::new([7; TAG])
    }

    fn say(text: &str) -> Say {
        Say {
            to: "bob".into(),
            text: text.into(),
        }
    }

    fn verified(datagram: &[u8]) -> Option<Verified<'_>> {
        match Datagram::parse(datagram)? {
            Datagram::Signed(signed) => signed.verify(&key()),
            Datagram::Hello => None,
        }
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // RFC 4231, test case 2, with the key brought to its length by the zeros that HMAC adds.
        let mut bytes = [0; TAG];
        bytes[..4].copy_from_slice(b"Jefe");
        let datagram = DatagramKey::new(bytes).sign(b"what do ya want for nothing?");
        let expected = "what do ya want for nothing?\n\
                        5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(datagram, expected.as_bytes());
    }

    #[test]
    fn a_request_comes_back_as_it_was_with_its_pad_and_without() {
        for length in [0, 300, MAX_DATAGRAM] {
            let datagram = encode_datagram(&key(), "t", 9, &say("hi"), length).expect("it fits");
            assert!(length == 0 || datagram.len() == length);
            let request = verified(&datagram).expect("it is signed");
            assert_eq!(request.id(), 9);
            assert_eq!(
                request.request().expect("sound"),
                DatagramRequest::Say(say("hi"))
            );
        }
        let who = encode_datagram(&key(), "t", 9, &Who {}, 0).expect("it fits");
        let request = verified(&who).expect("it is signed").request();
        assert_eq!(request.expect("sound"), DatagramRequest::Who);
        assert!(encode_datagram(&key(), "t", 9, &say(&"x".repeat(1100)), 0).is_err());
    }

    #[test]
    fn a_request_that_is_wrong_is_refused_by_its_field() {
        for (json, field) in [
            (r#"{"ticket":"t","id":1,"cmd":"rm","path":"/"}"#, "cmd"),
            (
                r#"{"ticket":"t","id":1,"cmd":"say","to":"bob","text":"x","loud":true}"#,
                "loud",
            ),
            (r#"{"ticket":"t","id":1,"cmd":"say","to":"bob"}"#, "text"),
            (r#"{"ticket":"t","id":1,"cmd":"ack","seq":-1}"#, "seq"),
        ] {
            let datagram = key().sign(json.as_bytes());
            let request = verified(&datagram).expect("it is signed").request();
            let bad = request.expect_err(json);
            assert_eq!((bad.id, bad.field.as_deref()), (1, Some(field)), "{json}");
        }
    }

    #[test]
    fn what_has_none_of_the_forms_is_nothing() {
        let too_long = format!(r#"{{"cmd":"hello","pad":"{}"}}"#, "x".repeat(MAX_DATAGRAM));
        for text in [
            "",
            "{}",
            "[\"hello\"]",
            r#"{"cmd":"who"}"#,
            r#"{"cmd":"hello","port":1}"#,
            r#"{"cmd":"hello"} x"#,
            r#"{"cmd":"hello","pad":1}"#,
            &too_long,
        ] {
            assert!(Datagram::parse(text.as_bytes()).is_none(), "{text}");
        }
        for json in [
            "[]",
            r#"{"id":1,"cmd":"who"}"#,
            r#"{"ticket":"","id":1,"cmd":"who"}"#,
            r#"{"ticket":"t","cmd":"who"}"#,
            r#"{"ticket":"t","id":4294967296,"cmd":"who"}"#,
            r#"{"ticket":"t","id":1,"id":2,"cmd":"who"}"#,
        ] {
            assert!(
                Datagram::parse(&key().sign(json.as_bytes())).is_none(),
                "{json}"
            );
        }
        assert!(matches!(
            Datagram::parse(&encode_hello()),
            Some(Datagram::Hello)
        ));
    }

    #[test]
    fn the_reply_to_a_say_that_was_done_always_has_room() {
        for id in [0, 7, u32::MAX] {
            let reply = crate::protocol::SayReply {
                seq: crate::protocol::MAX_NUMBER - 1,
                delivered: u32::MAX,
            };
            let request = Say {
                to: "b".into(),
                text: "x".into(),
            };
            let request = encode_datagram(&key(), "0123456789abcdef", id, &request, 0);
            let room = request.expect("it fits").len() - SIGNATURE;
            assert!(encode_ok(id, &reply).len() <= room, "{id}");
        }
    }

    #[test]
    fn a_secret_reads_back_and_does_not_show() {
        let back = DatagramKey::from_secret(&key().secret());
        assert_eq!(back, Some(key()));
        assert_eq!(format!("{:?}", key()), "***");
        assert_eq!(DatagramKey::from_secret(&Secret::new("07".into())), None);
    }

    fn people() -> impl Strategy<Value = WhoReply> {
        let users = prop::collection::vec("[a-z]{1,30}", 0..30);
        (users, any::<bool>()).prop_map(|(users, more)| {
            let present = |user| Present {
                user,
                sessions: 1,
                since: jiff::Timestamp::UNIX_EPOCH,
            };
            let users = users.into_iter().map(present).collect();
            WhoReply { users, more }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_datagram_with_any_bit_flipped_is_not_of_its_ticket(
            text in ".{0,40}",
            bit in any::<prop::sample::Index>(),
        ) {
            let sound = encode_datagram(&key(), "t", 1, &say(&text), 0).expect("it fits");
            prop_assert!(verified(&sound).is_some());
            let mut forged = sound.clone();
            let bit = bit.index(8 * forged.len());
            forged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verified(&forged).is_none());
            prop_assert!(key().open(&forged).is_none());
        }

        #[test]
        fn an_error_never_takes_more_than_its_room_and_keeps_its_code(
            message in ".{0,300}",
            room in 0_usize..500,
        ) {
            let mut error = WireError::new(ErrorCode::Limited, message);
            error.retry_after_ms = Some(100);
            match encode_error_within(3, &error, room) {
                Some(json) => {
                    prop_assert!(json.len() <= room);
                    let reply = ServerMessage::parse(&json).expect("a reply");
                    let ServerMessage::Reply(3, Err(back)) = reply else {
                        panic!("{reply:?}");
                    };
                    prop_assert_eq!(back.code, ErrorCode::Limited);
                    prop_assert!(error.message.starts_with(&back.message));
                }
                None => prop_assert!(room < 70),
            }
        }

        #[test]
        fn who_tells_as_many_as_fit_and_whether_there_are_more(
            who in people(),
            room in 0_usize..1200,
        ) {
            let json = encode_who_within(3, &who, room);
            prop_assert!(json.len() <= room || room < 40);
            let Ok(ServerMessage::Reply(3, Ok(reply))) = ServerMessage::parse(&json) else {
                panic!("no reply");
            };
            let told: WhoReply = serde_json::from_str(reply.get()).expect("a reply to who");
            let number = told.users.len();
            prop_assert_eq!(&told.users[..], &who.users[..number]);
            if told.more != who.more {
                prop_assert!(told.more && encode_ok(3, &who).len() > room);
            }
            prop_assert!(told.more || number == who.users.len());
            if let Some(next) = who.users.get(number) {
                let next = serde_json::to_vec(next).expect("JSON").len();
                prop_assert!(json.len() + next + 1 > room, "one more had room");
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..1400)) {
            prop_assert!(verified(&bytes).is_none());
            let mut object = b"{".to_vec();
            object.extend(bytes);
            let _ = Datagram::parse(&key().sign(&object));
        }
    }
}

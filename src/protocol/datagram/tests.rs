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
fn bytes_without_a_valid_form_are_not_a_datagram() {
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
        let max_bytes = request.expect("it fits").len() - SIGNATURE;
        assert!(encode_ok(id, &reply).len() <= max_bytes, "{id}");
    }
}

#[test]
fn a_secret_reads_back_and_does_not_show() {
    let restored = DatagramKey::from_secret(&key().secret());
    assert_eq!(restored, Some(key()));
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
        max_bytes in 0_usize..500,
    ) {
        let mut error = WireError::new(ErrorCode::Limited, message);
        error.retry_after_ms = Some(100);
        match encode_error_within(3, &error, max_bytes) {
            Some(json) => {
                prop_assert!(json.len() <= max_bytes);
                let reply = ServerMessage::parse(&json).expect("a reply");
                let ServerMessage::Reply(3, Err(restored)) = reply else {
                    panic!("{reply:?}");
                };
                prop_assert_eq!(restored.code, ErrorCode::Limited);
                prop_assert!(error.message.starts_with(&restored.message));
            }
            None => prop_assert!(max_bytes < 70),
        }
    }

    #[test]
    fn who_lists_the_users_that_fit_and_whether_there_are_more(
        who in people(),
        max_bytes in 0_usize..1200,
    ) {
        let json = encode_who_within(3, &who, max_bytes);
        prop_assert!(json.len() <= max_bytes || max_bytes < 40);
        let Ok(ServerMessage::Reply(3, Ok(reply))) = ServerMessage::parse(&json) else {
            panic!("no reply");
        };
        let reply_to_who: WhoReply = serde_json::from_str(reply.get()).expect("a reply to who");
        let number = reply_to_who.users.len();
        prop_assert_eq!(&reply_to_who.users[..], &who.users[..number]);
        if reply_to_who.more != who.more {
            prop_assert!(reply_to_who.more && encode_ok(3, &who).len() > max_bytes);
        }
        prop_assert!(reply_to_who.more || number == who.users.len());
        if let Some(next) = who.users.get(number) {
            let next = serde_json::to_vec(next).expect("JSON").len();
            prop_assert!(json.len() + next + 1 > max_bytes, "one more had max_bytes");
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

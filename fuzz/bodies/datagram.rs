//! Datagrams: any bytes are either rejected, or a request that is encoded to the same value and
//! answered with no more bytes.

use haul::protocol::{
    Ack, Call, Datagram, DatagramKey, DatagramRequest, ErrorCode, SIGNATURE, Say, Verified, Who,
    WireError, encode_datagram, encode_error_within,
};
use serde_json::{Map, Value};

const KEY: [u8; 32] = [7; 32];

pub(crate) fn check(input: &[u8]) {
    check_as_it_came(input);
    let signed = DatagramKey::new(KEY).sign(input);
    let Some(Datagram::Signed(datagram)) = Datagram::parse(&signed) else {
        return;
    };
    let ticket = datagram.ticket().to_owned();
    let verified = datagram.verify(&DatagramKey::new(KEY));
    let verified = verified.expect("it was signed with this key");
    check_forged(&signed, input);
    // Unknown fields are found only after the command is known.
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(input) else {
        assert!(verified.request().is_err());
        return;
    };
    assert_eq!(object["ticket"], *ticket);
    assert_eq!(object["id"], verified.id());
    check_request(&verified, &ticket, &object);
}

/// Without the key, only a search for servers is accepted.
fn check_as_it_came(input: &[u8]) {
    match Datagram::parse(input) {
        Some(Datagram::Hello) => {
            let object: Map<String, Value> = serde_json::from_slice(input).expect("an object");
            assert_eq!(object["cmd"], "hello");
            assert!(object.keys().all(|key| key == "cmd" || key == "pad"));
        }
        Some(Datagram::Signed(signed)) => {
            assert!(signed.verify(&DatagramKey::new(KEY)).is_none());
        }
        None => {}
    }
}

fn check_request(verified: &Verified<'_>, ticket: &str, object: &Map<String, Value>) {
    let id = verified.id();
    let request = match verified.request() {
        Ok(request) => request,
        Err(bad) => {
            assert_eq!(bad.id, id);
            let error = WireError::new(ErrorCode::BadRequest, bad.message);
            let reply = encode_error_within(id, &error, verified.max_bytes());
            assert!(reply.is_none_or(|reply| reply.len() <= verified.max_bytes()));
            return;
        }
    };
    let fields: &[&str] = match &request {
        DatagramRequest::Who => &[],
        DatagramRequest::Say(_) => &["to", "text"],
        DatagramRequest::Ack(_) => &["seq"],
    };
    let known = |key: &str| ["ticket", "id", "cmd", "pad"].contains(&key) || fields.contains(&key);
    for name in object.keys() {
        assert!(known(name), "{name} was silently dropped");
    }
    let again = match &request {
        DatagramRequest::Who => encode(ticket, id, &Who {}),
        DatagramRequest::Say(say) => encode::<Say>(ticket, id, say),
        DatagramRequest::Ack(ack) => encode::<Ack>(ticket, id, ack),
    };
    // Escaped characters may need more space than before.
    let Ok(again) = again else { return };
    let Some(Datagram::Signed(read)) = Datagram::parse(&again) else {
        panic!("{} does not read back", again.escape_ascii());
    };
    let read = read.verify(&DatagramKey::new(KEY)).expect("it is signed");
    assert_eq!(read.request().expect("it is sound"), request);
}

fn encode<C: Call>(ticket: &str, id: u32, request: &C) -> Result<Vec<u8>, usize> {
    encode_datagram(&DatagramKey::new(KEY), ticket, id, request, 0)
}

/// Checks that a datagram with one changed bit is rejected.
fn check_forged(signed: &[u8], input: &[u8]) {
    let mut forged = signed.to_vec();
    let place = usize::from(input[input.len() / 2]) % (signed.len() - SIGNATURE);
    forged[place] ^= 1;
    if let Some(Datagram::Signed(forged)) = Datagram::parse(&forged) {
        assert!(forged.verify(&DatagramKey::new(KEY)).is_none());
    }
}

//! The frame codec, for any bytes in pieces of any size.
//!
//! An input is a byte of switches, the number of cuts as a byte, the cuts, and the bytes that a
//! peer sends.

use bytes::BytesMut;
use haul::protocol::{Frame, FrameCodec, MAX_CONTROL, MAX_CONTROL_BEFORE_LOGIN, MAX_PAYLOAD};
use tokio_util::codec::{Decoder, Encoder};

/// Bytes in front of every payload.
const LENGTH: usize = 4;

pub(crate) fn check(input: &[u8]) {
    let [switches, count, rest @ ..] = input else {
        return;
    };
    let login = LoginMoment::from_switches(*switches);
    let (cuts, wire) = rest.split_at(rest.len().min(usize::from(count % 16)));
    let whole = decode(wire, login, &[]);
    let pieces = decode(wire, login, cuts);
    assert_eq!(whole, pieces, "the result depends on the cuts {cuts:?}");
    check_limits(&whole.frames, login);
    check_encoding(&whole, wire);
}

/// The moment of the peer's login, which raises the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginMoment {
    Before,
    AfterOneFrame,
    Never,
}

impl LoginMoment {
    fn from_switches(switches: u8) -> Self {
        match switches % 3 {
            0 => Self::Before,
            1 => Self::AfterOneFrame,
            _ => Self::Never,
        }
    }

    /// The longest control and data payloads of the frame after `frames` others.
    fn limits(self, frames: usize) -> (usize, usize) {
        if self == Self::Before || self == Self::AfterOneFrame && frames > 0 {
            (MAX_CONTROL, MAX_PAYLOAD)
        } else {
            (MAX_CONTROL_BEFORE_LOGIN, MAX_CONTROL_BEFORE_LOGIN)
        }
    }
}

#[derive(Debug, PartialEq)]
struct Decoded {
    frames: Vec<Frame>,
    /// The error, if the input did not end with a complete frame.
    error: Option<String>,
}

/// Decodes `wire` in pieces of the lengths in `cuts`, or in one piece without cuts.
fn decode(wire: &[u8], login: LoginMoment, cuts: &[u8]) -> Decoded {
    let mut codec = match login {
        LoginMoment::Before => FrameCodec::new(),
        LoginMoment::AfterOneFrame | LoginMoment::Never => FrameCodec::before_login(),
    };
    let mut lengths = cuts.iter().map(|cut| usize::from(*cut).max(1)).cycle();
    let mut received = BytesMut::new();
    let mut rest = wire;
    let mut frames = Vec::new();
    let ended = loop {
        let length = lengths.next().unwrap_or(wire.len()).min(rest.len());
        let (piece, later) = rest.split_at(length);
        rest = later;
        received.extend_from_slice(piece);
        let decoded = loop {
            let decoded = codec.decode(&mut received);
            let (_, limit) = login.limits(frames.len());
            let bound = 2 * (wire.len() + LENGTH + limit) + 64;
            assert!(
                received.capacity() <= bound,
                "{} bytes",
                received.capacity()
            );
            match decoded {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            if login == LoginMoment::AfterOneFrame {
                codec.lift_limits();
            }
        };
        if decoded.is_err() {
            break decoded;
        }
        if rest.is_empty() {
            let at_end = received.is_empty();
            let end = codec.decode_eof(&mut received);
            assert_eq!(matches!(end, Ok(None)), at_end, "{end:?}");
            break end.map(|frame| assert_eq!(frame, None));
        }
    };
    let error = ended.err().map(|error| error.to_string());
    assert!(error.as_ref().is_none_or(|error| error.len() < 200));
    Decoded { frames, error }
}

fn check_limits(frames: &[Frame], login: LoginMoment) {
    for (number, frame) in frames.iter().enumerate() {
        let (control, payload) = login.limits(number);
        match frame {
            Frame::Control(json) => {
                assert_eq!(json.first(), Some(&b'{'));
                assert!(json.len() <= control);
            }
            Frame::Data { chunk, .. } => assert!(chunk.len() + 5 <= payload),
        }
    }
}

/// Checks that decoded frames are encoded to the bytes that they were decoded from.
fn check_encoding(decoded: &Decoded, wire: &[u8]) {
    let mut encoded = BytesMut::new();
    let mut codec = FrameCodec::new();
    for frame in &decoded.frames {
        let written = codec.encode(frame.clone(), &mut encoded);
        written.expect("memory takes everything");
    }
    assert!(wire.starts_with(&encoded));
    assert!(decoded.error.is_some() || wire.len() == encoded.len());
}

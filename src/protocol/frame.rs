//! Frames: the boundaries of messages in a byte stream.
//!
//! ```text
//! length: u32 big-endian, 1 … 1 048 581, then that many bytes of payload:
//!   '{' …                              control: one JSON object
//!   0x01, stream: u32 big-endian, …    data: a chunk of the file on that stream
//! ```

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::protocol::limits::DATA_HEAD;
use crate::protocol::{MAX_CONTROL, MAX_CONTROL_BEFORE_LOGIN, MAX_PAYLOAD};

/// Bytes of the length in front of every payload.
const LENGTH: usize = size_of::<u32>();

const DATA_MARK: u8 = 0x01;

/// One message from either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One JSON object, not yet parsed; its first byte is `{`.
    Control(Bytes),
    /// A chunk of the file that moves on a stream.
    Data {
        /// The `id` of the `get` or `put`.
        stream: u32,
        /// 0 to [`MAX_CHUNK`](crate::protocol::MAX_CHUNK) bytes. An empty chunk ends a `put`.
        chunk: Bytes,
    },
}

impl Frame {
    /// Writes everything before the [`body`](Self::body), so that a large chunk need not be copied
    /// behind its head.
    ///
    /// # Panics
    /// If the body is longer than a frame may be; no caller builds such a frame.
    pub fn put_head(&self, buffer: &mut BytesMut) {
        match self {
            Self::Control(json) => put_length(buffer, json.len()),
            Self::Data { stream, chunk } => put_data_head(buffer, *stream, chunk.len()),
        }
    }

    /// The JSON or the chunk.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Control(json) => json,
            Self::Data { chunk, .. } => chunk,
        }
    }
}

/// Adds a control frame.
///
/// # Panics
/// As [`Frame::put_head`].
pub fn put_control(buffer: &mut Vec<u8>, json: &[u8]) {
    put_length(buffer, json.len());
    buffer.put_slice(json);
}

/// Adds the head of a data frame. The caller adds the given number of bytes of the chunk after it.
///
/// # Panics
/// As [`Frame::put_head`].
pub fn put_data_head(buffer: &mut impl BufMut, stream: u32, chunk: usize) {
    put_length(buffer, DATA_HEAD + chunk);
    buffer.put_u8(DATA_MARK);
    buffer.put_u32(stream);
}

fn put_length(buffer: &mut impl BufMut, payload: usize) {
    assert!(payload <= MAX_PAYLOAD, "a frame of {payload} bytes");
    #[expect(clippy::cast_possible_truncation, reason = "checked on the line above")]
    buffer.put_u32(payload as u32);
}

/// The bytes are not frames. The connection cannot continue after any of these errors.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length of 0.
    #[error("a frame of length 0")]
    Empty,
    /// A length over the limit; nothing was allocated for it.
    #[error("a frame of {length} bytes, over the limit of {limit}")]
    TooLong {
        /// The length that the peer announced.
        length: usize,
        /// The limit of the length here.
        limit: usize,
    },
    /// A payload that starts with neither `{` nor 0x01.
    #[error("a payload that starts with byte 0x{0:02x}, neither '{{' nor 0x01")]
    UnknownMark(u8),
    /// A data payload too short to name its stream.
    #[error("a data frame that is too short to name its stream")]
    NoStream,
    /// The peer closed the connection in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Truncated,
    /// The underlying stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Cuts a byte stream into [`Frame`]s and writes them.
///
/// Every bound is checked on the first five bytes. The codec allocates no memory: the reader asks for
/// the [`length`](Self::length) and allocates as it sees fit.
#[derive(Debug)]
pub struct FrameCodec {
    max_control: usize,
    max_payload: usize,
}

impl FrameCodec {
    /// For a peer that is trusted with frames of any allowed length.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max_control: MAX_CONTROL,
            max_payload: MAX_PAYLOAD,
        }
    }

    /// For a peer that has not logged in: short control frames only.
    #[must_use]
    pub fn before_login() -> Self {
        Self {
            max_control: MAX_CONTROL_BEFORE_LOGIN,
            max_payload: MAX_CONTROL_BEFORE_LOGIN,
        }
    }

    /// Lifts the limits of [`before_login`](Self::before_login).
    pub fn lift_limits(&mut self) {
        self.max_control = MAX_CONTROL;
        self.max_payload = MAX_PAYLOAD;
    }

    /// The bytes of the frame at the start of `src`, its length included; `None` if `src` has too few
    /// bytes to decide.
    ///
    /// # Errors
    /// [`FrameError`] if no valid frame begins like this.
    pub fn length(&self, src: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(length) = src.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let too_long = |limit| FrameError::TooLong { length, limit };
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.max_payload {
            return Err(too_long(self.max_payload));
        }
        match src.get(LENGTH) {
            None => Ok(None),
            Some(b'{') if length > self.max_control => Err(too_long(self.max_control)),
            Some(b'{') => Ok(Some(LENGTH + length)),
            Some(&DATA_MARK) if length < DATA_HEAD => Err(FrameError::NoStream),
            Some(&DATA_MARK) => Ok(Some(LENGTH + length)),
            Some(&mark) => Err(FrameError::UnknownMark(mark)),
        }
    }
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.length(src)?.filter(|length| *length <= src.len()) else {
            return Ok(None);
        };
        let mut payload = src.split_to(length).freeze();
        payload.advance(LENGTH);
        if payload.first() == Some(&b'{') {
            return Ok(Some(Frame::Control(payload)));
        }
        payload.advance(1);
        let stream = payload.get_u32();
        Ok(Some(Frame::Data {
            stream,
            chunk: payload,
        }))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(src)? {
            None if !src.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, dst: &mut BytesMut) -> Result<(), FrameError> {
        dst.reserve(LENGTH + DATA_HEAD + frame.body().len());
        frame.put_head(dst);
        dst.put_slice(frame.body());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            FrameCodec::new()
                .encode(frame.clone(), &mut bytes)
                .expect("writing to memory");
        }
        bytes
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let control = prop::collection::vec(any::<u8>(), 0..200).prop_map(|mut tail| {
            tail.insert(0, b'{');
            Frame::Control(tail.into())
        });
        let data = (any::<u32>(), prop::collection::vec(any::<u8>(), 0..5_000)).prop_map(
            |(stream, chunk)| Frame::Data {
                stream,
                chunk: chunk.into(),
            },
        );
        prop_oneof![control, data]
    }

    proptest! {
        #[test]
        fn sticky_packets_any_frames_cut_anywhere_and_glued_anyhow_decode_to_the_same_frames(
            frames in prop::collection::vec(any_frame(), 0..20),
            cuts in prop::collection::vec(1..700_usize, 1..50),
        ) {
            let wire = encoded(&frames);
            let mut codec = FrameCodec::new();
            let mut received = BytesMut::new();
            let mut decoded = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at(rest.len().min(*cut));
                received.extend_from_slice(piece);
                while let Some(frame) = codec.decode(&mut received)? {
                    decoded.push(frame);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(codec.decode_eof(&mut received)?, None);
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn a_stream_cut_within_a_frame_is_truncated_and_never_a_shorter_frame(
            frame in any_frame(),
            at in any::<prop::sample::Index>(),
        ) {
            let wire = encoded(&[frame]);
            let kept = 1 + at.index(wire.len() - 1);
            let mut received = BytesMut::from(&wire[..kept]);
            let mut codec = FrameCodec::new();
            if kept < wire.len() {
                prop_assert!(matches!(codec.decode_eof(&mut received), Err(FrameError::Truncated)));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_reserve_more_than_a_frame(bytes: Vec<u8>) {
            let mut received = BytesMut::from(&bytes[..]);
            let mut codec = FrameCodec::new();
            while let Ok(Some(_)) = codec.decode(&mut received) {}
            prop_assert!(received.capacity() <= bytes.len() + MAX_PAYLOAD + LENGTH);
        }
    }

    fn refusal(codec: &mut FrameCodec, bytes: &[u8]) -> (FrameError, usize) {
        let mut received = BytesMut::from(bytes);
        let error = codec.decode(&mut received).expect_err("must be refused");
        (error, received.capacity())
    }

    #[test]
    fn a_length_of_zero_is_refused() {
        let (error, _) = refusal(&mut FrameCodec::new(), &[0; 4]);
        assert!(matches!(error, FrameError::Empty));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
        for length in [u32::MAX, 1 << 31, 1_048_582] {
            let (error, capacity) = refusal(&mut FrameCodec::new(), &length.to_be_bytes());
            assert!(matches!(
                error,
                FrameError::TooLong {
                    limit: 1_048_581,
                    ..
                }
            ));
            assert!(capacity < 1024, "{capacity} bytes were reserved");
        }
    }

    #[test]
    fn a_control_frame_over_64_kib_is_refused_by_its_first_byte() {
        let mut head = 65_537_u32.to_be_bytes().to_vec();
        head.push(b'{');
        let (error, capacity) = refusal(&mut FrameCodec::new(), &head);
        assert!(matches!(error, FrameError::TooLong { limit: 65_536, .. }));
        assert!(capacity < 1024, "{capacity} bytes were reserved");
    }

    #[test]
    fn before_login_4_kib_is_the_limit_and_login_lifts_it() {
        let mut codec = FrameCodec::before_login();
        let (error, _) = refusal(&mut codec, &4097_u32.to_be_bytes());
        assert!(matches!(error, FrameError::TooLong { limit: 4096, .. }));
        codec.lift_limits();
        let mut received = BytesMut::from(&4097_u32.to_be_bytes()[..]);
        assert!(matches!(codec.decode(&mut received), Ok(None)));
    }

    #[test]
    fn a_payload_of_neither_kind_is_refused_by_its_first_byte() {
        let (error, _) = refusal(&mut FrameCodec::new(), b"\0\0\0\x09[");
        assert!(matches!(error, FrameError::UnknownMark(b'[')));
    }

    #[test]
    fn a_data_frame_without_room_for_a_stream_is_refused() {
        let (error, _) = refusal(&mut FrameCodec::new(), b"\0\0\0\x04\x01\0\0\0");
        assert!(matches!(error, FrameError::NoStream));
    }

    #[test]
    fn the_largest_chunk_fits_and_decodes_without_a_copy_left_behind() {
        let frame = Frame::Data {
            stream: 7,
            chunk: vec![b'x'; crate::protocol::MAX_CHUNK].into(),
        };
        let mut wire = encoded(std::slice::from_ref(&frame));
        assert_eq!(wire.len(), LENGTH + MAX_PAYLOAD);
        let decoded = FrameCodec::new().decode(&mut wire).expect("a sound frame");
        assert_eq!(decoded, Some(frame));
        assert!(wire.is_empty());
    }
}

//! Frames of the classic dialect: a little-endian length, then one JSON object. Pure.
//!
//! ```text
//! frame   = length json, and then `size` raw bytes where that is a positive number
//! length  = i32 little-endian: the bytes of the JSON
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::{MAX_CONTROL, MAX_CONTROL_BEFORE_LOGIN, MAX_NUMBER};

/// Bytes of the length in front of every frame.
const LENGTH_PREFIX_BYTES: usize = size_of::<i32>();

/// By how many bytes a framed request may be longer than the classic one.
pub(crate) const TRANSLATION_OVERHEAD_BYTES: usize = 256;

/// The longest JSON of a request.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_CONTROL - TRANSLATION_OVERHEAD_BYTES;

/// The same before login.
pub(crate) const MAX_FRAME_BYTES_BEFORE_LOGIN: usize =
    MAX_CONTROL_BEFORE_LOGIN - TRANSLATION_OVERHEAD_BYTES;

/// The stream cannot continue, because it does not say where the next frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClassicFrameError {
    /// No JSON has this length.
    #[error("a frame of length {0}")]
    Length(i32),
    /// Nothing was allocated for it.
    #[error("a frame of {length} bytes, over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a frame that is not one JSON object")]
    NotJson,
    #[error("a size that is no whole number below 2^53")]
    Size,
}

/// Removes the JSON of the next frame from the received bytes; `None` until it is complete.
pub(crate) fn take_frame(
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Option<Bytes>, ClassicFrameError> {
    let Some(length) = next_length(buffer, limit)? else {
        return Ok(None);
    };
    if buffer.len() < LENGTH_PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Whether the received bytes contain a complete frame, or an invalid one.
pub(crate) fn is_complete(bytes: &[u8], limit: usize) -> bool {
    match next_length(bytes, limit) {
        Ok(Some(length)) => bytes.len() >= LENGTH_PREFIX_BYTES + length,
        Ok(None) => false,
        Err(_) => true,
    }
}

fn next_length(bytes: &[u8], limit: usize) -> Result<Option<usize>, ClassicFrameError> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_le_bytes(*length);
    match usize::try_from(length) {
        Err(_) | Ok(0) => Err(ClassicFrameError::Length(length)),
        Ok(length) if length > limit => Err(ClassicFrameError::TooLong { length, limit }),
        Ok(length) => Ok(Some(length)),
    }
}

/// A request. A text that is missing, null or not a string is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClassicRequest {
    /// The line that the user typed.
    pub(crate) cmd: String,
    pub(crate) user: String,
    pub(crate) psd: String,
    pub(crate) filename: String,
    pub(crate) dst_dir: String,
    /// The number of raw bytes that follow.
    pub(crate) size: u64,
    pub(crate) file_hash: String,
}

impl ClassicRequest {
    /// Reads the JSON of a frame.
    ///
    /// # Errors
    /// [`BadFrame::NotJson`] and [`BadFrame::Size`].
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ClassicFrameError> {
        #[derive(Deserialize)]
        struct RawClassicRequest<'a> {
            #[serde(borrow, default)]
            cmd: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user: Option<&'a RawValue>,
            #[serde(borrow, default)]
            psd: Option<&'a RawValue>,
            #[serde(borrow, default)]
            filename: Option<&'a RawValue>,
            #[serde(borrow, default)]
            dst_dir: Option<&'a RawValue>,
            #[serde(borrow, default)]
            size: Option<&'a RawValue>,
            #[serde(borrow, default)]
            file_hash: Option<&'a RawValue>,
        }
        // An array also fits a derived struct.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(ClassicFrameError::NotJson);
        }
        let json = str::from_utf8(json).map_err(|_| ClassicFrameError::NotJson)?;
        let fields: RawClassicRequest<'_> =
            serde_json::from_str(json).map_err(|_| ClassicFrameError::NotJson)?;
        Ok(Self {
            cmd: text(fields.cmd),
            user: text(fields.user),
            psd: text(fields.psd),
            filename: text(fields.filename),
            dst_dir: text(fields.dst_dir),
            size: size(fields.size)?,
            file_hash: text(fields.file_hash),
        })
    }
}

fn text(value: Option<&RawValue>) -> String {
    let text = value.and_then(|value| serde_json::from_str(value.get()).ok());
    text.unwrap_or_default()
}

fn size(value: Option<&RawValue>) -> Result<u64, ClassicFrameError> {
    let Some(value) = value.map(RawValue::get) else {
        return Ok(0);
    };
    let size = match serde_json::from_str::<u64>(value) {
        Ok(size) => size,
        // A language with only floating-point numbers may write 3.0 or 3e0.
        Err(_) => match serde_json::from_str::<f64>(value) {
            Ok(number) if number <= 0.0 => 0,
            Ok(number) if number.fract() == 0.0 => to_whole_number(number),
            Ok(_) => return Err(ClassicFrameError::Size),
            // A number that does not fit is too large; anything else is not a number.
            Err(_) if value.starts_with(|first: char| first.is_ascii_digit()) => u64::MAX,
            Err(_) => 0,
        },
    };
    if size < MAX_NUMBER {
        Ok(size)
    } else {
        Err(ClassicFrameError::Size)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole and positive; one that is too large becomes the largest"
)]
fn to_whole_number(number: f64) -> u64 {
    number as u64
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ClassicReply {
    /// One or more lines for a person.
    pub(crate) res: String,
    /// The file that follows.
    #[serde(flatten)]
    pub(crate) file: Option<ClassicFileInfo>,
}

/// The description of a file whose raw bytes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ClassicFileInfo {
    pub(crate) filename: String,
    pub(crate) size: u64,
    pub(crate) dst_dir: String,
    /// The hex MD5.
    pub(crate) file_hash: String,
}

impl ClassicReply {
    /// The frame.
    ///
    /// # Panics
    /// If it is longer than the length field allows; no caller builds such a frame.
    pub(crate) fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("a reply is a struct of plain values");
        let length = i32::try_from(json.len()).expect("a reply is of bounded length");
        let mut frame = BytesMut::with_capacity(LENGTH_PREFIX_BYTES + json.len());
        frame.put_i32_le(length);
        frame.put_slice(&json);
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn frame(json: &[u8]) -> Vec<u8> {
        let length = i32::try_from(json.len()).expect("short");
        [&length.to_le_bytes()[..], json].concat()
    }

    fn parse(json: &serde_json::Value) -> Result<ClassicRequest, ClassicFrameError> {
        ClassicRequest::parse(json.to_string().as_bytes())
    }

    #[test]
    fn a_length_that_no_frame_has_is_refused_on_its_four_bytes() {
        for (length, error) in [
            (0, ClassicFrameError::Length(0)),
            (-1, ClassicFrameError::Length(-1)),
            (i32::MIN, ClassicFrameError::Length(i32::MIN)),
            (
                i32::MAX,
                ClassicFrameError::TooLong {
                    length: 2_147_483_647,
                    limit: MAX_FRAME_BYTES,
                },
            ),
        ] {
            let mut bytes = BytesMut::from(&length.to_le_bytes()[..]);
            assert!(
                is_complete(&bytes, MAX_FRAME_BYTES),
                "there is nothing to wait for"
            );
            assert_eq!(take_frame(&mut bytes, MAX_FRAME_BYTES), Err(error));
        }
    }

    #[test]
    fn fields_may_be_missing_null_zero_or_of_another_type() {
        let odd = json!({
            "cmd": "ls", "user": null, "psd": 0, "filename": ["a"], "dst_dir": {"a": 1},
            "size": null, "file_hash": false, "src_dir": 7, "other": [[]],
        });
        let expected = ClassicRequest {
            cmd: "ls".into(),
            ..ClassicRequest::default()
        };
        assert_eq!(parse(&odd), Ok(expected.clone()));
        assert_eq!(parse(&json!({"cmd": "ls"})), Ok(expected));
        assert_eq!(parse(&json!({})), Ok(ClassicRequest::default()));
    }

    #[test]
    fn a_size_is_a_positive_whole_number_or_none_and_no_other_number() {
        for (size, read) in [
            ("0", Ok(0)),
            ("13", Ok(13)),
            ("13.0", Ok(13)),
            ("1e3", Ok(1000)),
            ("9007199254740991", Ok((1 << 53) - 1)),
            ("-1", Ok(0)),
            ("-0.5", Ok(0)),
            ("-1e400", Ok(0)),
            ("\"13\"", Ok(0)),
            ("true", Ok(0)),
            ("[13]", Ok(0)),
            ("{}", Ok(0)),
            ("9007199254740992", Err(ClassicFrameError::Size)),
            ("18446744073709551616", Err(ClassicFrameError::Size)),
            ("1e30", Err(ClassicFrameError::Size)),
            ("1e400", Err(ClassicFrameError::Size)),
            ("1.5", Err(ClassicFrameError::Size)),
        ] {
            let json = format!("{{\"size\":{size}}}");
            let request = ClassicRequest::parse(json.as_bytes());
            assert_eq!(request.map(|request| request.size), read, "{size}");
        }
    }

    #[test]
    fn a_request_must_be_a_json_object() {
        let deep = "[".repeat(100_000);
        for json in [
            "",
            "{",
            "7",
            "[7]",
            "null",
            "{} {}",
            "\u{feff}{}",
            "{\"cmd\":\"a\",\"cmd\":\"b\"}",
            "{\"size\":NaN}",
            &format!("{{\"other\":{deep}"),
        ] {
            let short: String = json.chars().take(40).collect();
            assert_eq!(
                ClassicRequest::parse(json.as_bytes()),
                Err(ClassicFrameError::NotJson),
                "{short}"
            );
        }
        assert_eq!(
            ClassicRequest::parse(b"{\"cmd\":\"\xff\"}"),
            Err(ClassicFrameError::NotJson)
        );
    }

    #[test]
    fn a_reply_is_written_as_the_protocol_shows_it() {
        let mut reply = ClassicReply {
            res: "好".into(),
            file: None,
        };
        assert_eq!(
            reply.encode(),
            "\x0d\0\0\0{\"res\":\"好\"}".as_bytes(),
            "bytes are counted, not characters"
        );
        reply.file = Some(ClassicFileInfo {
            filename: "a".into(),
            size: 3,
            dst_dir: String::new(),
            file_hash: "900150983cd24fb0d6963f7d28e17f72".into(),
        });
        let json = "{\"res\":\"好\",\"filename\":\"a\",\"size\":3,\"dst_dir\":\"\",\
                    \"file_hash\":\"900150983cd24fb0d6963f7d28e17f72\"}";
        assert_eq!(reply.encode(), frame(json.as_bytes()));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            cuts in prop::collection::vec(1_usize..50, 1..8),
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|json| frame(json)).collect();
            let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(piece);
                rest = later;
                while let Some(json) = take_frame(&mut buffer, MAX_FRAME_BYTES).expect("sound") {
                    out.push(json.to_vec());
                }
                prop_assert!(!is_complete(&buffer, MAX_FRAME_BYTES));
            }
            prop_assert_eq!(out, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_take_more_than_there_is(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(json)) = take_frame(&mut buffer, MAX_FRAME_BYTES) {
                prop_assert!(!json.is_empty() && json.len() <= MAX_FRAME_BYTES);
                let _ = ClassicRequest::parse(&json);
            }
            prop_assert!(bytes.ends_with(&buffer));
        }

        #[test]
        fn any_text_in_the_json_of_a_request_is_read_as_it_was_meant(
            cmd: String, filename: String, size in 0_u64..(1 << 53),
        ) {
            let request = json!({"cmd": cmd, "filename": filename, "size": size, "psd": null});
            let expected = ClassicRequest { cmd, filename, size, ..ClassicRequest::default() };
            prop_assert_eq!(parse(&request), Ok(expected));
        }
    }
}

//! Serde functions for the numbers and flags of requests.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::protocol::MAX_NUMBER;

/// As [`number`], for a field that is required.
pub(super) fn required_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    number(deserializer)?.ok_or_else(|| D::Error::custom("expected a number"))
}

/// Deserialises an integer below [`MAX_NUMBER`].
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(number) if number >= MAX_NUMBER => Err(D::Error::custom(format_args!(
            "{number} is out of range: numbers are below 2^53"
        ))),
        number => Ok(number),
    }
}

/// Whether a flag is not set; such a flag is omitted.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

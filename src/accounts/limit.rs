//! Limits as administrators write them.

use std::str::FromStr;

use crate::accounts::database;

/// A limit to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No limit.
    Unlimited,
    /// At most this many.
    AtMost(u64),
}

impl Limit {
    pub(crate) fn to_column(self) -> Option<i64> {
        match self {
            Self::Unlimited => None,
            Self::AtMost(number) => Some(database::to_column(number)),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    /// Reads `none`, a number, or a size such as `10GiB`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::Unlimited);
        }
        let size = text.parse::<bytesize::ByteSize>();
        size.map(|size| Self::AtMost(size.as_u64()))
            .map_err(|_| "expected \"none\", a number, or a size such as 500MB or 10GiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_a_size_or_none() {
        assert_eq!("none".parse(), Ok(Limit::Unlimited));
        assert_eq!("0".parse(), Ok(Limit::AtMost(0)));
        assert_eq!("10GiB".parse(), Ok(Limit::AtMost(10 << 30)));
        assert_eq!("500 MB".parse(), Ok(Limit::AtMost(500_000_000)));
        for text in ["", "-1", "ten", "10 apples"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}

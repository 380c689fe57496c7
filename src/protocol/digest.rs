//! Digests of file contents: `alg:hex` on the wire, computed piece by piece.
//!
//! BLAKE3 is the default; SHA-256 (FIPS 180-4) is in every language's standard library; MD5
//! (RFC 1321) is for old clients and protects against accidents only.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A digest algorithm, by its name on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// BLAKE3, 32 bytes.
    #[default]
    Blake3,
    /// SHA-256, 32 bytes.
    Sha256,
    /// MD5, 16 bytes.
    Md5,
}

impl Algorithm {
    /// Whether nobody can make two contents with the same digest. MD5 does not have this.
    #[must_use]
    pub fn resists_collisions(self) -> bool {
        !matches!(self, Self::Md5)
    }

    /// Every algorithm, the default first.
    pub const ALL: [Self; 3] = [Self::Blake3, Self::Sha256, Self::Md5];

    /// The name on the wire, such as `sha256`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;

    fn from_str(name: &str) -> Result<Self, InvalidDigest> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or(InvalidDigest)
    }
}

/// The digest of some bytes, with the algorithm that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Digest {
    /// A BLAKE3 digest.
    Blake3([u8; 32]),
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// An MD5 digest.
    Md5([u8; 16]),
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn compute(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm of the digest.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Blake3(_) => Algorithm::Blake3,
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Md5(_) => Algorithm::Md5,
        }
    }

    /// The raw bytes, 16 or 32 of them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Blake3(bytes) | Self::Sha256(bytes) => bytes,
            Self::Md5(bytes) => bytes,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.algorithm(),
            HEXLOWER.encode(self.as_bytes())
        )
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (name, hex) = text.split_once(':').ok_or(InvalidDigest)?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| InvalidDigest)?;
        match name.parse()? {
            Algorithm::Blake3 => bytes.try_into().map(Self::Blake3),
            Algorithm::Sha256 => bytes.try_into().map(Self::Sha256),
            Algorithm::Md5 => bytes.try_into().map(Self::Md5),
        }
        .map_err(|_| InvalidDigest)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

/// The text is not `alg:hex` in lower case with a known algorithm and its number of digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected blake3:, sha256: or md5: and lower-case hex digits")]
pub struct InvalidDigest;

/// Computes a [`Digest`] piece by piece.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// Computes a BLAKE3 digest.
    Blake3(Box<blake3::Hasher>),
    /// Computes a SHA-256 digest.
    Sha256(Sha256),
    /// Computes an MD5 digest.
    Md5(Md5),
}

impl Hasher {
    /// A hasher that has seen no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Md5 => Self::Md5(Md5::new()),
        }
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all hashed bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self {
            Self::Blake3(hasher) => Digest::Blake3(*hasher.finalize().as_bytes()),
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Md5(hasher) => Digest::Md5(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_published_digests_of_nothing_are_met() {
        let empty = Algorithm::ALL.map(|algorithm| Digest::compute(algorithm, b"").to_string());
        assert_eq!(
            empty,
            [
                "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
                "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "md5:d41d8cd98f00b204e9800998ecf8427e",
            ]
        );
    }

    #[test]
    fn upper_case_a_wrong_length_and_an_unknown_algorithm_are_refused() {
        for text in [
            "",
            "md5",
            "md5:",
            "md5:D41D8CD98F00B204E9800998ECF8427E",
            "md5:d41d8cd98f00b204e9800998ecf8427",
            "sha256:d41d8cd98f00b204e9800998ecf8427e",
            "crc32:00000000",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_digest_reads_back_as_it_was_written(bytes: Vec<u8>) {
            for algorithm in Algorithm::ALL {
                let digest = Digest::compute(algorithm, &bytes);
                prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            }
        }

        #[test]
        fn pieces_hash_like_the_whole(pieces: Vec<Vec<u8>>) {
            for algorithm in Algorithm::ALL {
                let mut hasher = Hasher::new(algorithm);
                for piece in &pieces {
                    hasher.update(piece);
                }
                prop_assert_eq!(hasher.finish(), Digest::compute(algorithm, &pieces.concat()));
            }
        }
    }
}

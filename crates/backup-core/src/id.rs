//! Names as types: what was checked once need not be checked again.
//!
//! All of these appear in paths of a vault, so each refuses what could leave its folder (`/`, `..`, empty) by
//! allowing a small alphabet only.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name or identifier was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    /// The text that was refused.
    pub text: String,
    /// What would have been accepted, with its form.
    pub expected: &'static str,
}

/// A SHA-256 (FIPS 180-4), written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash256(pub [u8; 32]);

impl Hash256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash256 {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError { text: text.to_owned(), expected: "a SHA-256 of 64 lower-case hex digits" };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refused());
        }
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out).map_err(|_| refused())?;
        Ok(Self(out))
    }
}

impl TryFrom<String> for Hash256 {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Hash256> for String {
    fn from(hash: Hash256) -> Self {
        hash.to_string()
    }
}

/// Name of an object: the SHA-256 of its stored bytes.
pub type ObjectName = Hash256;

/// Identity of a chunk: the BLAKE3 of its plaintext. Never leaves the host, so that no stock tool need know it; as hard
/// to make collide as a SHA-256, in a quarter of the time, and every byte of every run is hashed for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The identity of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { text: text.to_owned(), expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

fn is_label(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

text_id! {
    /// Name of a stack, as in the configuration and in paths.
    StackName, is_label, "a stack name: 1 to 40 of `a-z`, `0-9`, `-`, not starting with `-`"
}

text_id! {
    /// Name of a source, as in the configuration and in paths.
    SourceName, is_label, "a source name: 1 to 40 of `a-z`, `0-9`, `-`, not starting with `-`"
}

text_id! {
    /// Random identity of a vault, pinned by the configuration: 32 lower-case hex digits.
    VaultId, |t| t.len() == 32 && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
    "a vault id of 32 lower-case hex digits"
}

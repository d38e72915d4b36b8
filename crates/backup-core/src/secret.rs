//! Values that must never be printed: passwords, access keys, identities.
//!
//! A [`Secret`] has no `Display`, a `Debug` that says `[secret]`, and is wiped when dropped. Where it is needed it is
//! asked for by name with [`Secret::reveal`], so that each use can be found by searching for that word.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of `text`; the caller keeps no copy.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself. Must not be formatted into messages, events, arguments of processes or files.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

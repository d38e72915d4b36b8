//! What is wrong with a configuration, and what only looks unwise.
//!
//! Nothing here may hold a secret: texts of the file are echoed only where the key's value is public by its meaning
//! (names, durations), never for URLs, credentials or recipients, and never as a quoted source line.

use std::path::PathBuf;

/// A configuration was refused: where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}`{}", file.display(), line.map_or_else(String::new, |line| format!(" line {line}")))]
pub struct ConfigError {
    /// The file, as it was given.
    pub file: PathBuf,
    /// Line in the file, counted from 1; absent when a whole table is missing.
    pub line: Option<usize>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
    /// What to do, as an action.
    pub hint: Option<String>,
}

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not TOML.
    #[error("not valid TOML: {message}")]
    Syntax {
        /// The parser's words, without the line that it stopped at.
        message: String,
    },
    /// A key that the schema does not have.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// Full path of the key.
        key: String,
    },
    /// A key that must be there.
    #[error("`{key}` is missing")]
    Missing {
        /// Full path of the key.
        key: String,
    },
    /// A value of another type.
    #[error("`{key}` is {found}, not {expected}")]
    Type {
        /// Full path of the key.
        key: String,
        /// What the schema wants.
        expected: Box<str>,
        /// What is there, by type, never by value.
        found: &'static str,
    },
    /// A secret where a reference to one belongs.
    #[error("`{key}` is a literal secret")]
    LiteralSecret {
        /// Full path of the key.
        key: String,
    },
    /// A value that is not understood or not allowed.
    #[error("`{key}`: {why}")]
    Value {
        /// Full path of the key.
        key: String,
        /// Why it is refused, without secrets.
        why: String,
    },
}

/// Something that is allowed and that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Full path of the key that it is about.
    pub key: String,
    /// The warning, in the form of an error text.
    pub text: String,
    /// What to do, as an action.
    pub hint: String,
}

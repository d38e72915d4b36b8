//! Every error that ends a verb: its class, its chain, its hint. The only place that turns errors of the engine into
//! exit codes and advice.

mod engine;

pub(crate) use engine::LINE;

use std::error::Error;

use backup_core::config::ConfigError;
use backup_core::id::IdError;
use backup_core::vault::store::StoreError;
use backup_core::words::escaped_lines;
use serde_json::{Value, json};

use crate::exit::Exit;

/// Why a verb ended without doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CliError {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// An error with its whole text: lowercase, no full stop, objects in backticks, causes after colons. Control characters
    /// are written out: the text goes into reports, the state and mail, and may quote what lies in a vault.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: escaped_lines(&message.into()), hint: None }
    }

    /// A wrong call or configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An error from the engine or the system, with what was attempted: `what: cause: cause`.
    pub(crate) fn caused(exit: Exit, what: impl std::fmt::Display, cause: &dyn Error) -> Self {
        Self::new(exit, format!("{what}: {}", chain(cause)))
    }

    /// Adds what to do next: an action.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what it is about: `what: message`.
    pub(crate) fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same with another end, where what was attempted makes it another class.
    pub(crate) fn ends(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What it means where it ends a part of the work only: damage stays damage, everything else makes it partial.
    pub(crate) fn as_part(&self) -> Exit {
        if self.exit == Exit::Damage { Exit::Damage } else { Exit::Partial }
    }

    /// The text, without `error: `.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// `{"message", "class", "exit", "hint"}`; `hint` is null when there is none.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "message": self.message, "class": self.exit.word(), "exit": self.exit.code(), "hint": self.hint })
    }
}

/// `a: b: c`, without repeating a cause that its parent has already quoted.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        next = cause.source();
    }
    text
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let converted = Self::usage(chain(&error));
        match error.hint {
            Some(hint) => converted.hint(hint),
            None => converted.hint("see `backup config schema` for every key and its meaning"),
        }
    }
}

impl From<IdError> for CliError {
    fn from(error: IdError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = store(&error);
        let converted = Self::new(exit, chain(&error));
        match hint {
            Some(hint) => converted.hint(hint),
            None => converted,
        }
    }
}

/// What to do about damage that somebody met on the way: a listing does not show wrong bytes, so everything is read.
pub(crate) const MEND: &str = "find all that is damaged, and bring good copies from another vault, with \
     `backup verify --read-data 1/1 --repair`; a restore need not wait for it: `--vault NAME`";

/// What a store's error means and what to do.
fn store(error: &StoreError) -> (Exit, Option<String>) {
    let (exit, hint) = match error {
        StoreError::NotFound { .. } | StoreError::TooLarge { .. } | StoreError::Exists { .. } => (Exit::Damage, MEND),
        StoreError::Unusable { .. } => {
            (Exit::Failed, "see what lies there and who put it there; this program stores plain bodies only")
        }
        StoreError::Denied { reason, .. } if reason.starts_with("RequestTimeTooSkewed") => {
            (Exit::Failed, "set the clock that is wrong, this host's or the endpoint's, then run again")
        }
        // Stores of objects are called by their address.
        StoreError::Denied { store, .. } if !store.starts_with("s3://") => {
            (Exit::Failed, "check the rights of this user there, and whether it is mounted read-only")
        }
        StoreError::Denied { .. } => (Exit::Failed, "check the vault's credentials and what they may do"),
        StoreError::Full { .. } => (Exit::Failed, "make room, or shorten `keep` and prune; nothing half-made was kept"),
        StoreError::Missing { .. } => (Exit::NoVault, "mount the directory or create the bucket, then try again"),
        StoreError::Failed { reason, .. } if reason.contains("InvalidBucketName") => {
            (Exit::Failed, "correct `bucket` in the vault's `s3`: no bucket has such a name")
        }
        StoreError::Failed { .. } => (Exit::Failed, "check that the vault can be reached, then run again"),
    };
    (exit, Some(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);
    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &(dyn Error + 'static))
        }
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let error = Layer("a", Some(Box::new(Layer("b: c", Some(Box::new(Layer("c", None)))))));
        assert_eq!(CliError::caused(Exit::Failed, "x", &error).message(), "x: a: b: c");
    }

    #[test]
    fn what_is_stored_and_sent_holds_no_control_characters() {
        let error = CliError::new(Exit::Failed, "a\x1b[2J\u{9b}\nb").about("x");
        assert_eq!(error.message(), "x: a\\u{1b}[2J\\u{9b}\nb");
    }

    #[test]
    fn stores_that_are_away_and_stores_that_are_damaged_differ() {
        let missing = StoreError::Missing { store: "/srv".into(), reason: "not mounted".into() };
        assert_eq!(CliError::from(missing).exit(), Exit::NoVault);
        let gone = StoreError::NotFound { path: "a".into(), store: "/srv".into() };
        assert_eq!(CliError::from(gone).exit(), Exit::Damage);
    }
}

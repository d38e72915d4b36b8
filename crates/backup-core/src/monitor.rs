//! The engine tells, it never prints: [`Event`]s go to a [`Monitor`], which renders text, JSON or nothing.

/// Something that happened while a verb ran.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A source's capture began.
    CaptureStarted {
        /// Name of the source in the configuration.
        source: String,
    },
    /// A phase of a longer work began (`pre-data`, `data`, `post-data`, …).
    Phase {
        /// Name of the source.
        source: String,
        /// What begins now, in words for people.
        phase: String,
    },
    /// Plaintext bytes were read from (capture) or written to (restore) a source.
    Plain {
        /// How many more bytes.
        bytes: u64,
    },
    /// An object became durable in a vault.
    Stored {
        /// Its stored size.
        bytes: u64,
    },
    /// A call to a store or server failed and will be tried again.
    Retry {
        /// What was attempted, with the name of the object.
        what: String,
        /// The failure, without secrets.
        why: String,
        /// Attempt that failed, counted from 1.
        attempt: u32,
    },
    /// Something that an operator should know and that does not end the work.
    Warning {
        /// The message, in the form of an error text (lowercase, no full stop).
        text: String,
    },
    /// Something worth a line in a verbose run.
    Note {
        /// The message.
        text: String,
    },
}

/// Listens to [`Event`]s. Called from several threads; must not block for long and must not fail.
pub trait Monitor: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _event: Event) {}
}

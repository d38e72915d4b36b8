//! How to restore without this program: the page that `init` puts into every vault.
//!
//! It is one bash script over stock tools. A test cuts it out of a vault and runs it with nothing else in its `PATH`: the
//! promise that data outlives this program rests on that test, not on this text.

/// The page, `RECOVER-1.md`.
pub const RECOVER: &str = include_str!("recover/RECOVER-1.md");

//! Engine of `backup`: captures sources, seals what they give, keeps it in vaults, and brings it back.
//!
//! What this crate never does: print, exit, read the environment, read the wall clock (a [`clock::Clock`] is handed
//! in), or decide what an operator sees (it emits [`monitor::Event`]s). The words used here are those of
//! `ARCHITECTURE.md`; the bytes it writes are described, apart from the code, in `FORMAT.md`.

pub mod anomaly;
pub mod audit;
pub mod backup;
pub mod catalogue;
pub mod chunk;
pub mod clock;
pub mod config;
pub mod critical;
pub mod fingerprint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod grant;
pub mod hidden;
pub mod id;
pub mod json;
pub mod manifest;
pub mod mark;
pub mod monitor;
pub mod pipeline;
pub mod prune;
pub mod recover;
pub mod repair;
pub mod replicate;
pub mod seal;
pub mod secret;
pub mod signature;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod vault;
pub mod verify;
pub mod words;

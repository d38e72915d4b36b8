//! PostgreSQL: rows of plain tables by our own COPY, everything else by `pg_dump`.
//!
//! Exact counts and fingerprints come from the very bytes that are stored, because we read the rows; what a database
//! is besides rows (types, functions, privileges, large objects, extension tables) is `pg_dump`'s, because nobody
//! else gets all of it right. Both see one exported snapshot, so they are one instant.
//!
//! What makes it safe is the order of things, and that nothing is believed: tables are locked *before* the snapshot
//! is taken (TRUNCATE and rewrites are not MVCC-safe), each COPY is bracketed by checks of name, oid and file node,
//! and the archive's own table of contents must account for every relation that has rows. `capture` argues each step.
//!
//! It never writes to the source database, never puts a password in an argument or a message, and never holds more
//! than one row and one write batch per worker in memory.

mod alternatives;
mod archive;
pub mod capture;
mod catalog;
mod child;
pub mod clients;
mod copy_out;
pub mod error;
mod formats;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod globals;
pub mod import;
mod instants;
mod large_objects;
pub(crate) mod names;
pub mod options;
mod plan;
mod pooler;
pub mod preflight;
mod printed;
pub(crate) mod properties;
mod reconcile;
pub mod restore;
mod rows;
mod session;
mod shape;
mod snapshot;
mod waiters;
mod wire;
mod workers;

pub use capture::capture;
pub use clients::{Clients, ClientsOption, Tool};
pub use error::PostgresError;
pub use options::{ConnectOptions, CountCheck, Globals, PostgresOptions};

//! The binary `backup`: alone in printing, exiting, and reading the environment and the clock.
//!
//! A verb is a file in `commands/`: its arguments, and a `run` that asks the engine and hands what it got to the
//! printer. Errors of the engine become exit codes and hints in `error.rs`, in no other place.

mod address;
mod cli;
mod commands;
mod context;
mod edit;
mod endpoint;
mod environment;
mod error;
mod exit;
mod find;
mod heads;
mod identity;
mod lock;
mod locks;
mod pending;
mod printer;
mod pruning;
mod replication;
mod report;
mod runtime;
mod secrets;
mod session;
mod sheet;
mod table;
mod terminal;
mod when;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    cli::main(&args).into()
}

//! The binary `backup`: alone in printing, exiting, and reading the environment and the clock.
//!
//! A verb is a file in `commands/`: its arguments, and a `run` that asks the engine and hands what it got to the
//! printer. Errors of the engine become exit codes and hints in `error.rs`, in no other place.

mod cli;
mod commands;
mod context;
mod error;
mod exit;
mod find;
mod identity;
mod printer;
mod secrets;
mod session;
mod table;
mod terminal;
#[cfg_attr(not(test), expect(dead_code, reason = "read by `restore --at`, which joins the tree with its engine"))]
mod when;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    cli::main(&args).into()
}

//! `backup config check|show|schema`.

mod cadence;
mod check;
mod places;
mod schema;
mod show;

pub(super) use cadence::cadence;
pub(super) use check::{files, keys};
pub(super) use places::places;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;

/// Check, show and explain the configuration
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    Check(check::Args),
    Show(show::Args),
    Schema(schema::Args),
}

/// Runs one of them.
pub(crate) fn run(cx: &Context, verb: &Verb) -> Result<Exit, CliError> {
    match verb {
        Verb::Check(args) => check::run(cx, args),
        Verb::Show(args) => show::run(cx, args),
        Verb::Schema(args) => schema::run(cx, args),
    }
}

//! `backup key new|list|check`.

mod check;
mod list;
mod new;
mod sheet;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;

/// Make, list and check keys
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    New(new::Args),
    Sheet(sheet::Args),
    List(list::Args),
    Check(check::Args),
}

/// Runs one of them.
pub(crate) fn run(cx: &Context, verb: &Verb) -> Result<Exit, CliError> {
    match verb {
        Verb::New(args) => new::run(cx, args),
        Verb::Sheet(args) => sheet::run(cx, args),
        Verb::List(args) => list::run(cx, args),
        Verb::Check(args) => check::run(cx, args),
    }
}

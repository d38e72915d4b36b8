//! `backup key new|list|check|sheet|grant|revoke`.

mod check;
mod grant;
mod list;
mod new;
mod revoke;
mod sheet;

use backup_core::config::check_recipient;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::runtime::block_on;

/// Make, list, check, grant and revoke keys
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    New(new::Args),
    Sheet(sheet::Args),
    List(list::Args),
    Check(check::Args),
    Grant(grant::Args),
    Revoke(revoke::Args),
}

/// Runs one of them.
pub(crate) fn run(cx: &Context, verb: &Verb) -> Result<Exit, CliError> {
    match verb {
        Verb::New(args) => new::run(cx, args),
        Verb::Sheet(args) => sheet::run(cx, args),
        Verb::List(args) => list::run(cx, args),
        Verb::Check(args) => check::run(cx, args),
        Verb::Grant(args) => block_on(grant::run(cx, args)),
        Verb::Revoke(args) => block_on(revoke::run(cx, args)),
    }
}

/// Refuses what is no recipient, without repeating it: a secret may have been pasted.
fn recipient(text: &str) -> Result<&str, CliError> {
    check_recipient(text)
        .map(|()| text)
        .map_err(|(why, hint)| CliError::usage(format!("the given RECIPIENT {why}")).hint(hint))
}

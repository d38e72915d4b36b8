//! `backup key sheet`: the recovery sheet again.

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::sheet::Sheet;

/// Print the recovery sheet: what to keep off this host
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// The same sheet that `init` printed, from the configuration as it is now.
pub(crate) fn run(cx: &Context, _args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let sheet = Sheet::new(&session.config, &session.host_key()?, &session.signers()?);
    cx.printer.result("key sheet", sheet.to_json(), || sheet.text())?;
    Ok(Exit::Done)
}

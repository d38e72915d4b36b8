//! Vaults that do not answer: named, with what to do, and never a reason to stop while another one answers.

use backup_core::vault::Vault;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::report::told;

/// Names the vaults that did not answer. With none that did, the first one's error ends the verb; otherwise gives how
/// the verb ends at best.
pub(crate) fn report(cx: &Context, open: &[Vault], silent: &[(String, CliError)]) -> Result<Exit, CliError> {
    if open.is_empty()
        && let Some((_, error)) = silent.first()
    {
        return Err(error.clone());
    }
    for (name, error) in silent {
        let text = format!("vault `{name}` cannot be used: {}", error.message());
        cx.printer.warn(&text, error.advice().unwrap_or("the other vaults are used"));
    }
    Ok(silent.iter().fold(Exit::Done, |end, (_, error)| end.worse(error.as_part())))
}

/// For a run's report.
pub(crate) fn lines(silent: &[(String, CliError)]) -> Vec<String> {
    silent.iter().flat_map(|(name, error)| told(&format!("vault `{name}` cannot be used"), error)).collect()
}

/// For `--json`.
pub(crate) fn to_json(silent: &[(String, CliError)]) -> Vec<Value> {
    silent.iter().map(|(name, error)| json!({ "vault": name, "error": error.to_json() })).collect()
}

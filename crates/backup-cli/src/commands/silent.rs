//! Vaults that do not answer: named, with what to do, and never a reason to stop while another one answers.

use backup_core::vault::Vault;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::report::told;

/// That no vault answers, with the reason of each by its name; `None` where none was asked.
pub(crate) fn none(silent: &[(String, CliError)]) -> Option<CliError> {
    let worst = silent.iter().map(|(_, error)| error.exit()).reduce(Exit::worse)?;
    // Several causes, one of them a wrong key here and one a folder that is gone there, are no vault all the same.
    let mixed = worst == Exit::Failed && silent.iter().any(|(_, error)| error.exit() == Exit::NoVault);
    let exit = if mixed { Exit::NoVault } else { worst };
    let each: Vec<String> = silent.iter().map(|(name, error)| format!("`{name}`: {}", error.message())).collect();
    let mut hints: Vec<&str> = Vec::new();
    for hint in silent.iter().filter_map(|(_, error)| error.advice()) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    let error = CliError::new(exit, format!("no vault answers: {}", each.join("; ")));
    Some(error.hint(if hints.is_empty() {
        "check that the vaults can be reached".to_owned()
    } else {
        hints.join("; ")
    }))
}

/// Names the vaults that did not answer. With none that did, that ends the verb; otherwise gives how the verb ends at best.
pub(crate) fn report(cx: &Context, open: &[Vault], silent: &[(String, CliError)]) -> Result<Exit, CliError> {
    if open.is_empty()
        && let Some(error) = none(silent)
    {
        return Err(error);
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

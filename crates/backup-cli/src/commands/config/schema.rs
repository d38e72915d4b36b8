//! `backup config schema`.

use backup_core::config::{schema, schema_json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::table::Table;

/// List every key of the configuration with its meaning
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints the table, or the machine-readable schema.
pub(crate) fn run(cx: &Context, _args: &Args) -> Result<Exit, CliError> {
    let text = || {
        let mut table = Table::new(&["KEY", "MEANING"]);
        for key in schema() {
            let kind = key.kind.map_or_else(String::new, |kind| format!("({kind}) "));
            let need = match key.default {
                Some(default) => format!(" [default: {}]", if default.is_empty() { "\"\"" } else { default }),
                None if key.required => " [required]".to_owned(),
                None => String::new(),
            };
            table.row(vec![key.path, format!("{kind}{}; {}{need}", key.doc, key.value)]);
        }
        table.render()
    };
    cx.printer.result("config schema", schema_json(), text)?;
    Ok(Exit::Done)
}

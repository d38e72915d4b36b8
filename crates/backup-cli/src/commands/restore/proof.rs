//! What was compared, as a table: nothing is called restored that is not in it.

use std::path::Path;

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::files::Restored;
use backup_core::source::postgres::restore::RestoreProof;
use serde_json::{Value, json};

use super::suspicion::Suspicion;
use crate::commands::silent;
use crate::error::CliError;
use crate::printer::Printer;
use crate::table::Table;
use crate::words;

/// Rows of a table that are printed for people before it is summed up.
const SHOWN: usize = 200;

/// The proof of one source.
pub(super) struct Proof {
    source: String,
    value: Value,
    text: String,
    error: Option<CliError>,
}

impl Proof {
    /// It did not come back.
    pub(super) fn failed(source: &SourceName, error: CliError) -> Self {
        let value = json!({ "source": source, "restored": false, "error": error.to_json() });
        Self { source: source.to_string(), value, text: String::new(), error: Some(error) }
    }

    /// It came back, and it is suspect.
    pub(super) fn suspect(mut self, suspicion: &Suspicion) -> Self {
        self.value["suspect"] = suspicion.to_json();
        self.text.push_str(&format!("the snapshot is {}\n", suspicion.text()));
        self
    }

    /// A database.
    pub(super) fn database(source: &SourceName, snapshot: &OpenSnapshot, proof: &RestoreProof) -> Self {
        let mut table = Table::new(&["TABLE", "ROWS AT CAPTURE", "ROWS RESTORED", "FINGERPRINT"]);
        for one in proof.tables.iter().take(SHOWN) {
            let equal = if one.expected.fingerprint == one.found.fingerprint { "equal" } else { "DIFFERS" };
            table.row(vec![
                format!("{}.{}", one.schema, one.name),
                one.expected.rows.to_string(),
                one.found.rows.to_string(),
                equal.to_owned(),
            ]);
        }
        let rows: u64 = proof.tables.iter().map(|one| one.found.rows).sum();
        let mut text = format!("database {} from snapshot {}\n", proof.database, snapshot.doc().id);
        text.push_str(&table.render());
        if proof.tables.len() > SHOWN {
            text.push_str(&format!("… and {} more tables\n", proof.tables.len() - SHOWN));
        }
        let how = if proof.tables.iter().all(|one| one.read_back) { "read back and " } else { "" };
        text.push_str(&format!("{} tables, {rows} rows: {how}equal to what was captured\n", proof.tables.len()));
        if let Some(objects) = proof.large_objects.filter(|objects| objects.count > 0) {
            let how =
                if objects.read_back { "read back and equal to what was captured" } else { "as many as captured" };
            text.push_str(&format!("{} large objects: {how}\n", objects.count));
        }
        for name in &proof.without_rows {
            text.push_str(&format!("without rows, as captured or chosen: {name}\n"));
        }
        for note in &proof.notes {
            text.push_str(&format!("{note}\n"));
        }
        for one in &proof.expected {
            text.push_str(&format!("check {}: {}\n", one.name, one.found));
        }
        for name in &proof.not_asked {
            text.push_str(&format!("check {name}: not asked, because only a part came back\n"));
        }
        if let Some(kept) = &proof.replaced {
            text.push_str(&format!("the database that was there is kept as {kept}\n"));
        }
        for command in &proof.bring_back {
            text.push_str(&format!("to bring its rows back: {command}\n"));
        }
        let tables: Vec<Value> = proof
            .tables
            .iter()
            .map(|one| {
                json!({
                    "schema": one.schema, "table": one.name,
                    "rows_captured": one.expected.rows, "rows_restored": one.found.rows,
                    "fingerprint_captured": one.expected.fingerprint, "fingerprint_restored": one.found.fingerprint,
                    "read_back": one.read_back, "equal": one.ok(),
                })
            })
            .collect();
        let checks: Vec<Value> = proof
            .expected
            .iter()
            .map(|one| json!({ "name": one.name, "answer": one.found.to_string(), "ok": one.ok() }))
            .collect();
        let value = json!({
            "source": source, "restored": true, "snapshot": snapshot.doc().id, "database": proof.database,
            "tables": tables, "large_objects": proof.large_objects.map(|objects| {
                json!({ "count": objects.count, "read_back": objects.read_back })
            }), "without_rows": proof.without_rows, "created_roles": proof.created_roles,
            "replaced": proof.replaced, "bring_back": proof.bring_back,
            "expect": checks, "expect_not_asked": proof.not_asked, "notes": proof.notes,
        });
        Self { source: source.to_string(), value, text, error: None }
    }

    /// Rows that went into a database that was there.
    pub(super) fn rows(source: &SourceName, snapshot: &OpenSnapshot, proof: &RestoreProof) -> Self {
        let mut proved = Self::database(source, snapshot, proof);
        proved.value["data_only"] = Value::Bool(true);
        // Others were there before: what is not chosen is not empty.
        proved.text = proved.text.replace("without rows, as captured or chosen: ", "not touched: ");
        proved
    }

    /// Tables in a schema of their own, in a database that was there.
    pub(super) fn beside(source: &SourceName, snapshot: &OpenSnapshot, proof: &RestoreProof, schema: &str) -> Self {
        let mut proved = Self::database(source, snapshot, proof);
        proved.value["into_schema"] = Value::from(schema);
        proved.text = format!("schema {schema} in {}", proved.text);
        proved
    }

    /// Files.
    pub(super) fn files(source: &SourceName, snapshot: &OpenSnapshot, restored: &Restored) -> Self {
        let mut table = Table::new(&["SIZE", "SHA-256", "FILE"]);
        for file in restored.proof.files.iter().take(SHOWN) {
            let equal = if file.ok { "equal" } else { "DIFFERS" };
            table.row(vec![words::bytes(file.bytes), equal.to_owned(), file.path.clone()]);
        }
        let mut text = format!("files of {source} from snapshot {}\n", snapshot.doc().id);
        text.push_str(&table.render());
        if restored.proof.files.len() > SHOWN {
            text.push_str(&format!("… and {} more files\n", restored.proof.files.len() - SHOWN));
        }
        text.push_str(&format!("{} files, each with the SHA-256 that was captured\n", restored.proof.files.len()));
        for placed in &restored.placed {
            if let Some(old) = &placed.old {
                text.push_str(&format!("{} was there and is kept as {}\n", placed.target.display(), old.display()));
            }
        }
        let files: Vec<Value> = restored
            .proof
            .files
            .iter()
            .map(|file| {
                json!({
                    "path": file.path, "bytes": file.bytes, "sha256_captured": file.sha256_expected,
                    "sha256_restored": file.sha256_found, "equal": file.ok,
                })
            })
            .collect();
        let placed: Vec<Value> =
            restored.placed.iter().map(|placed| json!({ "target": placed.target, "old": placed.old })).collect();
        let value = json!({
            "source": source, "restored": true, "snapshot": snapshot.doc().id, "files": files, "placed": placed,
            "others": restored.proof.others, "notes": restored.notes,
        });
        Self { source: source.to_string(), value, text, error: None }
    }

    /// Plain files of a database.
    pub(super) fn plain(source: &SourceName, snapshot: &OpenSnapshot, dir: &Path) -> Self {
        let text = format!(
            "plain files of {source} from snapshot {} in {}\nevery stream has the SHA-256 that was captured\n",
            snapshot.doc().id,
            dir.display()
        );
        let value = json!({ "source": source, "restored": true, "snapshot": snapshot.doc().id, "directory": dir });
        Self { source: source.to_string(), value, text, error: None }
    }
}

/// Prints all proofs, and the errors of what did not come back.
pub(super) fn print(printer: &Printer, proofs: &[Proof], silent: &[(String, CliError)]) -> Result<(), CliError> {
    let values: Vec<&Value> = proofs.iter().map(|proof| &proof.value).collect();
    let complete = proofs.iter().all(|proof| proof.error.is_none());
    let value = json!({ "complete": complete, "sources": values, "silent": silent::to_json(silent) });
    printer.result("restore", value, || {
        let texts: Vec<&str> = proofs.iter().map(|proof| proof.text.as_str()).filter(|text| !text.is_empty()).collect();
        texts.join("\n")
    })?;
    for proof in proofs {
        if let Some(error) = &proof.error {
            // The hint comes last: it is what to do.
            printer.talk(&format!("source {} was NOT restored", proof.source));
            printer.error(error);
        }
    }
    Ok(())
}

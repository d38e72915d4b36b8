//! What a database is, by stock programs, and what a capture of it says; the two can be compared.

use std::collections::BTreeMap;

use backup_core::manifest::{StreamKind, TableEntry};
use backup_core::source::Captured;
use harness::pg::{Cluster, fed};

use super::super::sink::{only, parts, rows_of, stream};

/// Definitions, and of each table columns and sorted rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    definitions: String,
    rows: BTreeMap<String, Vec<String>>,
}

const ROWS: &str = r"
SELECT format('COPY (SELECT %L) TO STDOUT; COPY (SELECT %s FROM ONLY %I.%I) TO STDOUT;', '== ' || n.nspname || '.' || c.relname ||
    ' (' || coalesce(columns, '') || ')', columns, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) a ON true
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_|^information_schema$';
";

impl Picture {
    /// By `psql` and `pg_dump`.
    pub(super) fn of(cluster: &Cluster, database: &str) -> Self {
        let script = cluster.psql(database, ROWS);
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut now = String::new();
        for line in cluster.psql(database, &script).lines() {
            if line.starts_with("== ") {
                line.clone_into(&mut now);
                rows.entry(now.clone()).or_default();
            } else {
                rows.get_mut(&now).unwrap().push(line.to_owned());
            }
        }
        for rows in rows.values_mut() {
            rows.sort();
        }
        let archive = cluster.client("pg_dump", database).args(["-Fc", "--schema-only"]).output().unwrap();
        assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
        Self { definitions: definitions(cluster, &archive.stdout), rows }
    }

    /// By what was captured.
    pub(super) fn captured(cluster: &Cluster, captured: &Captured) -> Self {
        let archive = stream(captured, only(captured, StreamKind::PgArchive));
        let table = |table: &TableEntry| {
            let rows = rows(captured, table);
            assert_eq!(rows.len() as u64, table.rows, "{}.{}", table.schema, table.name);
            (format!("== {}.{} ({})", table.schema, table.name, table.columns.join(", ")), rows)
        };
        Self { definitions: definitions(cluster, archive), rows: captured.tables.iter().map(table).collect() }
    }

    /// What differs, shortly; nothing when the two are the same.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        for name in self.rows.keys().chain(other.rows.keys()) {
            let (left, right) = (self.rows.get(name), other.rows.get(name));
            if left != right {
                let said = |rows: Option<&Vec<String>>| {
                    rows.map(|rows| format!("{} rows from {:?}", rows.len(), rows.first()))
                };
                out.push(format!("{name}: {:?} and {:?}", said(left), said(right)));
            }
        }
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (left, right) = (lines(&self.definitions), lines(&other.definitions));
        out.extend(left.iter().filter(|line| !right.contains(line)).map(|line| format!("- {line}")));
        out.extend(right.iter().filter(|line| !left.contains(line)).map(|line| format!("+ {line}")));
        if out.is_empty() && self != other {
            out.push("the definitions are in another order".to_owned());
        }
        out
    }
}

/// An archive's definitions as SQL, without what is different in each run.
fn definitions(cluster: &Cluster, archive: &[u8]) -> String {
    let mut command = cluster.client("pg_restore", "postgres");
    let output = fed(command.args(["--schema-only", "-f", "-"]), archive);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// The captured rows of a table, sorted, each as COPY's text format has it; of binary ones, the types that are used here.
pub(super) fn rows(captured: &Captured, table: &TableEntry) -> Vec<String> {
    let files = parts(captured, table);
    let rows = files.iter().flat_map(|(_, file)| rows_of(&table.format, file));
    let mut rows: Vec<String> = rows.map(|row| text(table, row)).collect();
    rows.sort();
    rows
}

fn text(table: &TableEntry, row: &[u8]) -> String {
    if table.format == "text" {
        return String::from_utf8(row.to_vec()).unwrap();
    }
    let mut rest = &row[2..];
    let field = |kind: &i64| {
        let length = i32::from_be_bytes(*rest.first_chunk().unwrap());
        rest = &rest[4..];
        let Ok(length) = usize::try_from(length) else { return "\\N".to_owned() };
        let (value, behind) = rest.split_at(length);
        rest = behind;
        match kind {
            20 => i64::from_be_bytes(*value.first_chunk().unwrap()).to_string(),
            23 => i32::from_be_bytes(*value.first_chunk().unwrap()).to_string(),
            25 => String::from_utf8(value.to_vec()).unwrap(),
            other => panic!("type {other}"),
        }
    };
    table.types.iter().map(field).collect::<Vec<_>>().join("\t")
}

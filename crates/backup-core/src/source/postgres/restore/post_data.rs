//! What comes after the rows: indexes, constraints, triggers, contents of materialized views. In which order, and what of
//! it need not wait for the last row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::archive::Archive;
use super::error::RestoreError;
use crate::manifest::TableEntry;
use crate::source::postgres::rows::RowFormat;

/// The entries after the rows of one archive.
pub(super) struct PostData<'a> {
    archive: &'a Archive<'a>,
    /// Wrapped clients do not see our lists: for them it is one step, one by one.
    steps: Option<Steps>,
    /// Lines of entries that are built already.
    built: Mutex<BTreeSet<String>>,
}

/// An index that can be built as soon as its table has its rows: a line of the table of contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EarlyIndex(String);

impl<'a> PostData<'a> {
    pub(super) fn new(archive: &'a Archive<'a>, steps: Option<Steps>) -> Self {
        Self { archive, steps, built: Mutex::default() }
    }

    /// What can be built for a table whose rows are all there, while other tables are loaded. Only a table that was taken in
    /// binary has no other types than the server's own.
    pub(super) fn early(&self, table: &TableEntry) -> Vec<EarlyIndex> {
        if table.format != RowFormat::Binary.word() {
            return Vec::new();
        }
        let early = self.steps.iter().flat_map(|steps| written(&table.schema, &table.name).map(|t| (steps, t)));
        early.flat_map(|(steps, table)| steps.early.get(&table).into_iter().flatten().cloned()).collect()
    }

    /// Builds one of them. What fails here comes again with all others, and is an error then.
    pub(super) async fn build(&self, EarlyIndex(line): &EarlyIndex) {
        if self.archive.restore_post_data(Some(line), 1).await.is_ok() {
            self.built.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone());
        }
    }

    /// Everything that was not built early, in three steps.
    pub(super) async fn finish(&self, jobs: usize) -> Result<(), RestoreError> {
        let Some(steps) = &self.steps else { return self.archive.restore_post_data(None, 1).await };
        let rest = |list: &str| -> String {
            let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            list.split_inclusive('\n').filter(|line| !built.contains(*line)).collect()
        };
        for (list, jobs) in [(&steps.alone, 1), (&steps.together, jobs), (&steps.last, 1)] {
            let list = rest(list);
            if !list.is_empty() {
                self.archive.restore_post_data(Some(&list), jobs).await?;
            }
        }
        Ok(())
    }
}

/// The order of what comes after rows, as lists for `pg_restore --use-list`.
///
/// `pg_restore -j` builds several indexes of a table at once. An index that the table is clustered on, or that is its
/// replica identity, is an entry of two statements, the second one an ALTER TABLE: two such entries, or one and any
/// other index of the table, lock each other out and the server ends one of them. So these come first, one by one;
/// an index depends on nothing else behind the rows.
///
/// Event triggers come last, behind the contents of materialized views: `pg_restore` makes them before these, and they
/// would then fire at our own REFRESH, write what was never in the database, or forbid it.
///
/// Some of what is in `together` can be built before the last table has its rows: plain indexes and keys over columns,
/// by the table's name as `pg_dump` writes it. An expression, a condition or an operator class may call a function that
/// reads another table, so these wait; so do all indexes of a table with a type that is not the server's own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    alone: String,
    together: String,
    last: String,
    early: BTreeMap<String, Vec<EarlyIndex>>,
}

impl Steps {
    /// Sorts the lines of `list` by what the entries are; `script` is what `pg_restore --verbose` would run.
    pub(super) fn of(list: &str, script: &[u8]) -> Self {
        let (tailed, plain) = (indexes_with_tails(script), plain_indexes(script));
        let mut steps = Self::default();
        for line in list.lines().filter(|line| !line.starts_with(';')) {
            let Some((id, rest)) = line.split_once("; ") else { continue };
            let entry = rest.splitn(3, ' ').nth(2).unwrap_or_default();
            let last = ["EVENT TRIGGER ", "COMMENT - EVENT TRIGGER ", "SECURITY LABEL - EVENT TRIGGER "];
            let step = if entry.starts_with("INDEX ") && tailed.contains(id) {
                &mut steps.alone
            } else if last.iter().any(|word| entry.starts_with(word)) {
                &mut steps.last
            } else {
                let index = ["INDEX ", "CONSTRAINT "].iter().any(|word| entry.starts_with(word));
                if let Some(table) = plain.get(id).filter(|_| index) {
                    steps.early.entry(table.clone()).or_default().push(EarlyIndex(format!("{line}\n")));
                }
                &mut steps.together
            };
            step.push_str(line);
            step.push('\n');
        }
        steps
    }
}

/// Ids of entries with a line that begins with ALTER TABLE. One too many does no harm: an index is built alone then.
fn indexes_with_tails(script: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut current = None;
    for line in script.split(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"-- TOC entry ") {
            let digits = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
            current = std::str::from_utf8(digits).ok().map(str::to_owned);
        } else if line.starts_with(b"ALTER TABLE ") {
            found.extend(current.clone());
        }
    }
    found
}

/// Of each entry that is one plain index or key and nothing else: its id, and the table as it is written there.
///
/// What looks like an entry may be text inside another one (of a comment, say): an id that comes twice is nobody's.
fn plain_indexes(script: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(script);
    let (mut found, mut seen) = (BTreeMap::new(), BTreeSet::new());
    for entry in text.split("-- TOC entry ").skip(1) {
        let Some((id, rest)) = entry.split_once(' ') else { continue };
        if !seen.insert(id) {
            found.remove(id);
            continue;
        }
        let around = |line: &&str| line.is_empty() || ["--", "\\", "SET "].iter().any(|start| line.starts_with(start));
        let statement: Vec<&str> = rest.lines().skip(1).filter(|line| !around(line)).collect();
        let table = match statement[..] {
            [index] => plain_index(index),
            [table, key] => table.strip_prefix("ALTER TABLE ONLY ").filter(|_| is_plain_key(key)),
            _ => None,
        };
        if let Some(table) = table {
            found.insert(id.to_owned(), table.to_owned());
        }
    }
    found
}

/// The table of a statement that makes an index over columns.
fn plain_index(statement: &str) -> Option<&str> {
    let rest = statement.strip_prefix("CREATE INDEX ").or_else(|| statement.strip_prefix("CREATE UNIQUE INDEX "))?;
    let (table, rest) = after_name(rest)?.strip_prefix(" ON ")?.split_once(" USING btree (")?;
    rest.strip_suffix(");").is_some_and(are_columns).then_some(table)
}

/// Whether a line adds a primary key or a unique constraint over columns.
fn is_plain_key(line: &str) -> bool {
    let key = || {
        let rest = after_name(line.strip_prefix("    ADD CONSTRAINT ")?)?;
        let columns = rest.strip_prefix(" PRIMARY KEY (").or_else(|| rest.strip_prefix(" UNIQUE ("))?;
        columns.strip_suffix(");")
    };
    key().is_some_and(are_columns)
}

/// Whether these are columns in their types' own order: no expression, no operator class, no collation.
fn are_columns(list: &str) -> bool {
    let order = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
    list.split(", ").all(|column| after_name(column).is_some_and(|rest| order.contains(&rest)))
}

/// What follows an identifier.
fn after_name(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let end = text.find(|c| !plain(c)).unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    let mut rest = quoted;
    loop {
        rest = &rest[rest.find('"')? + 1..];
        match rest.strip_prefix('"') {
            Some(doubled) => rest = doubled,
            None => return Some(rest),
        }
    }
}

/// The ways in which `pg_dump` may write a table's name.
fn written(schema: &str, name: &str) -> [String; 4] {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (s, n) = (quoted(schema), quoted(name));
    [format!("{schema}.{name}"), format!("{s}.{name}"), format!("{schema}.{n}"), format!("{s}.{n}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_that_lock_their_table_come_first_and_event_triggers_last() {
        let list = ";\n; Selected TOC Entries:\n;\n\
            20; 1259 16400 INDEX public plain postgres\n21; 1259 16401 INDEX public clustered postgres\n\
            22; 2606 16402 CONSTRAINT public t t_pkey postgres\n23; 3466 16403 EVENT TRIGGER - log postgres\n\
            24; 0 0 COMMENT - EVENT TRIGGER log postgres\n25; 0 16404 MATERIALIZED VIEW DATA public m postgres\n";
        let script =
            b"--\n-- TOC entry 20 (class 1259 OID 16400)\n-- Name: plain; Type: INDEX\n--\n\nCREATE INDEX;\n\n\
            -- TOC entry 21 (class 1259 OID 16401)\n--\nCREATE INDEX;\n\nALTER TABLE t CLUSTER ON clustered;\n\
            -- TOC entry 22 (class 2606 OID 16402)\nALTER TABLE ONLY t\n    ADD CONSTRAINT;\n";
        let steps = Steps::of(list, script);
        let ids = |list: &str| list.lines().map(|line| line[..2].to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(&steps.alone), ["21"]);
        assert_eq!(ids(&steps.together), ["20", "22", "25"]);
        assert_eq!(ids(&steps.last), ["23", "24"]);
    }

    #[test]
    fn only_plain_indexes_of_the_table_itself_come_early() {
        let entries = [
            "CREATE INDEX a ON public.t USING btree (x, y DESC);",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT b PRIMARY KEY (x);",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c UNIQUE (x);\n\nSET default_tablespace = fast;",
            "CREATE UNIQUE INDEX d ON public.\"T\" USING btree (x);",
            "CREATE INDEX e ON public.t USING btree (f(x));",
            "CREATE INDEX f ON public.t USING btree (x) WHERE (y > 1);",
            "CREATE INDEX g ON public.t USING btree (x);\n\nALTER TABLE public.t CLUSTER ON g;",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT h EXCLUDE USING gist (x WITH &&);",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT i FOREIGN KEY (x) REFERENCES public.u(x);",
            "CREATE POLICY j ON public.t USING (true);",
            "CREATE INDEX k ON public.t USING btree (x public.my_ops);",
            "CREATE INDEX l ON public.t USING btree (x COLLATE \"C\");",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"m UNIQUE (\" FOREIGN KEY (x) REFERENCES public.u(x);",
            "CREATE INDEX \"n ON public.u USING btree (x);\" ON public.t USING btree (f(x));",
            "COMMENT ON INDEX i IS E'x\n-- TOC entry 15 (\nALTER TABLE ONLY public.t\n    ADD CONSTRAINT a UNIQUE (x);\n-- TOC entry 99 (';",
            "REFRESH MATERIALIZED VIEW public.m;",
            "CREATE INDEX \"o\"\"p\" ON public.t USING btree (x, \"Y\" DESC NULLS LAST);",
        ];
        let mut script = String::new();
        let mut list = String::new();
        for (at, entry) in entries.iter().enumerate() {
            script.push_str(&format!("-- TOC entry {at} (class 1259 OID 1)\n-- Name: n\n--\n\n{entry}\n\n\n--\n"));
            let kind = if entry.starts_with("ALTER") { "CONSTRAINT" } else { "INDEX" };
            list.push_str(&format!("{at}; 1259 1 {kind} public n postgres\n"));
        }
        let steps = Steps::of(&list, script.as_bytes());
        let ids = |table: &str| {
            let early = steps.early.get(table).into_iter().flatten();
            early.map(|EarlyIndex(line)| line.split(';').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids("public.t"), ["0", "1", "2", "16"]);
        assert_eq!(ids("public.\"T\""), ["3"]);
        assert_eq!(steps.early.len(), 2);
        assert!(written("public", "T").contains(&"public.\"T\"".to_owned()));
        let all = steps.together.lines().chain(steps.alone.lines()).count();
        assert_eq!(all, entries.len(), "what fails early comes again with all others");
    }
}

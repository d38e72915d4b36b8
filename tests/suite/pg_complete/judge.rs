//! What is in a database, as stock `pg_dump`, `pg_dumpall` and `psql` see it; nothing of ours is asked.
//!
//! Two pictures are compared text by text. They are taken in sessions with fixed settings, because the databases'
//! own settings (which are compared too) would change how values print.

use std::fmt::Write as _;
use std::process::Command;

use harness::pg::{Cluster, fed};

/// Settings of the judge's own sessions.
const SESSION: &str = "-c search_path= -c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=3 \
    -c bytea_output=hex -c lc_monetary=C -c statement_timeout=0 -c row_security=off -c default_transaction_read_only=on \
    -c client_min_messages=warning -c max_parallel_workers_per_gather=0 -c enable_seqscan=on";

/// Tables with their rows, one line each; rows sorted as text, columns by name (a column that a child of an inheritance
/// tree had first stands elsewhere after `pg_restore`). Trees of schema `moving` are one table, because their rows hash by
/// oids and belong to other leaves in another database.
const TABLES: &str = r#"
SELECT pg_catalog.format('COPY (SELECT %L) TO STDOUT; COPY (SELECT %s FROM %s %I.%I "a row" ORDER BY 1) TO STDOUT;',
    '== ' || n.nspname || '.' || c.relname || ' ' || c.relkind::text,
    CASE c.relkind WHEN 'S' THEN 'pg_catalog.concat_ws('' '', last_value, is_called)' ELSE 'ROW(' ||
        coalesce((SELECT pg_catalog.string_agg('"a row".' || pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C")
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '') || ')::text COLLATE "C"' END,
    CASE WHEN c.relkind IN ('m', 'S', 'p') THEN '' ELSE 'ONLY' END, n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_|^information_schema$' AND c.relpersistence <> 't' AND CASE WHEN n.nspname = 'moving'
    THEN c.relkind = 'p' AND NOT c.relispartition OR c.relkind = 'r' AND NOT c.relispartition
    ELSE c.relkind IN ('r', 'S') OR c.relkind = 'm' AND c.relispopulated END
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C";
"#;

/// What `pg_dump --schema-only` does not say.
const REST: &str = r#"
COPY (SELECT '== populated', n.nspname, c.relname, c.relispopulated FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' ORDER BY 2, 3) TO STDOUT;
COPY (SELECT '== large object', m.oid, pg_catalog.pg_get_userbyid(m.lomowner), pg_catalog.obj_description(m.oid, 'pg_largeobject'),
    (SELECT pg_catalog.array_agg(a::text ORDER BY a::text COLLATE "C") FROM pg_catalog.unnest(m.lomacl) a),
    pg_catalog.md5(pg_catalog.lo_get(m.oid)), pg_catalog.length(pg_catalog.lo_get(m.oid))
    FROM pg_catalog.pg_largeobject_metadata m ORDER BY 2) TO STDOUT;
COPY (SELECT '== database', d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
    pg_catalog.to_jsonb(d) - ARRAY['oid', 'datdba', 'encoding', 'dattablespace', 'datfrozenxid', 'datminmxid', 'datlastsysoid', 'datacl'],
    (SELECT spcname FROM pg_catalog.pg_tablespace t WHERE t.oid = d.dattablespace),
    (SELECT pg_catalog.array_agg(a::text ORDER BY a::text COLLATE "C") FROM pg_catalog.unnest(d.datacl) a),
    pg_catalog.shobj_description(d.oid, 'pg_database')
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) TO STDOUT;
COPY (SELECT '== setting', pg_catalog.pg_get_userbyid(s.setrole), s.setconfig FROM pg_catalog.pg_db_role_setting s
    JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = pg_catalog.current_database() ORDER BY 2) TO STDOUT;
COPY (SELECT '== extension', e.extname, e.extversion, (SELECT pg_catalog.array_agg(o::pg_catalog.regclass) FROM pg_catalog.unnest(e.extconfig) o), e.extcondition
    FROM pg_catalog.pg_extension e ORDER BY 2) TO STDOUT;
COPY (SELECT '== member', e.extname, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE d.deptype = 'e' ORDER BY 2, 3) TO STDOUT;
"#;

/// Everything that can be told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// `pg_dump --schema-only --create`.
    pub(super) definitions: String,
    /// Rows of all tables and contents of all sequences and materialized views.
    pub(super) rows: String,
    /// The rest.
    pub(super) rest: String,
    /// `pg_dumpall --globals-only`.
    pub(super) globals: String,
}

impl Picture {
    /// Looks at a database of a cluster.
    pub(super) fn of(cluster: &Cluster, database: &str) -> Self {
        let script = psql(cluster, database, TABLES.as_bytes());
        Self {
            definitions: sorted_settings(&stock(
                cluster.client("pg_dump", database).args(["--schema-only", "--create"]),
            )),
            rows: lossy(&psql(cluster, database, &script)),
            rest: lossy(&psql(cluster, database, REST.as_bytes())),
            globals: stock(cluster.client("pg_dumpall", database).arg("--globals-only")),
        }
    }

    /// How often a text occurs in the rows: for tests that want to be sure that something was there to compare.
    pub(super) fn tables(&self) -> usize {
        self.rows.lines().filter(|line| line.starts_with("== ") && line.ends_with(" r")).count()
    }

    /// Lines that differ; nothing when the two are the same.
    pub(super) fn differences(&self, other: &Self) -> String {
        let mut out = String::new();
        let parts = [
            ("definitions", &self.definitions, &other.definitions),
            ("rows", &self.rows, &other.rows),
            ("rest", &self.rest, &other.rest),
            ("globals", &self.globals, &other.globals),
        ];
        for (name, left, right) in parts {
            if left != right {
                let _ = writeln!(out, "{name} differ:\n{}", lines(left, right));
            }
        }
        out
    }
}

/// The first lines that only one of the texts has at its place, each with what it stands below.
fn lines(left: &str, right: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.lines().collect(), right.lines().collect());
    let mut out = String::new();
    let (mut i, mut j, mut told) = (0, 0, 0);
    let cut = |line: &str| line.chars().take(300).collect::<String>();
    while (i < left.len() || j < right.len()) && told < 60 {
        if left.get(i) == right.get(j) {
            (i, j) = (i + 1, j + 1);
            continue;
        }
        // The nearest place where both go on together.
        let ahead = (1..400).flat_map(|sum| (0..=sum).map(move |a| (a, sum - a)));
        let meet = |(a, b): &(usize, usize)| matches!((left.get(i + a), right.get(j + b)), (Some(l), Some(r)) if l == r && !l.is_empty());
        let (a, b) =
            ahead.into_iter().find(meet).unwrap_or((left.len() - i.min(left.len()), right.len() - j.min(right.len())));
        let head =
            left[..i.min(left.len())].iter().rev().find(|line| line.starts_with("==") || line.starts_with("-- Name"));
        let _ = writeln!(out, "@ {}", head.unwrap_or(&""));
        for line in left.iter().skip(i).take(a) {
            let _ = writeln!(out, "- {}", cut(line));
        }
        for line in right.iter().skip(j).take(b) {
            let _ = writeln!(out, "+ {}", cut(line));
        }
        told += a + b;
        (i, j) = (i + a, j + b);
    }
    out
}

fn psql(cluster: &Cluster, database: &str, script: &[u8]) -> Vec<u8> {
    let mut command = cluster.client("psql", database);
    command.env("PGOPTIONS", SESSION).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    let output = fed(&mut command, script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Output of a stock program, without what is different in each run.
fn stock(command: &mut Command) -> String {
    let output = command.env("PGOPTIONS", SESSION).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = lossy(&output.stdout);
    text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

/// `pg_dump` prints settings of roles in a database in the order in which they lie on disk.
fn sorted_settings(text: &str) -> String {
    let setting = |line: &str| line.starts_with("ALTER ROLE ") && line.contains(" IN DATABASE ");
    let (mut settings, mut lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| setting(line));
    settings.sort_unstable();
    lines.append(&mut settings);
    lines.join("\n")
}

/// Bytes as text, so that different bytes stay different.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| {
        bytes
            .iter()
            .map(|byte| if byte.is_ascii() { char::from(*byte).to_string() } else { format!("<{byte:02x}>") })
            .collect()
    })
}

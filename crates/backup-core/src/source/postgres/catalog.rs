//! What the catalogs say: relations, columns, sizes.
//!
//! A query over `pg_class` sees the transaction's snapshot; functions such as `pg_relation_filenode` see what is
//! committed now. Rule 4 compares the two, so this file reads columns only and leaves the functions to `copy_out`.

use std::collections::{HashMap, HashSet};

use super::error::PostgresError;
use super::names;
use super::session::{Session, column};

/// Object ids below are `initdb`'s.
pub(super) const FIRST_NORMAL_OID: i64 = 16384;

/// A relation that has rows or could have (tables, partitioned parents, foreign tables, sequences).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    /// `r` table, `p` partitioned, `f` foreign, `S` sequence.
    pub(super) kind: char,
    /// `p` permanent, `u` unlogged, `t` temporary.
    pub(super) persistence: char,
    /// Access method: `heap` or another.
    pub(super) method: String,
    /// Extension that it is a member of.
    pub(super) extension: Option<String>,
    /// Its extension wants its rows dumped: the `WHERE …` clause, empty for all rows.
    pub(super) config: Option<String>,
    /// File node in the snapshot.
    pub(super) file_node: i64,
    /// We may read it: USAGE on the schema and SELECT on the relation.
    pub(super) readable: bool,
    /// Row-level security would hide rows from us.
    pub(super) secured: bool,
    /// Its name, its schema's or a column's is no UTF-8, which happens where a database has no encoding.
    pub(super) nameless: bool,
}

impl Relation {
    /// A table of which only the name is known, and which of its rows its extension has dumped.
    pub(super) fn named(schema: &str, name: &str, config: Option<String>) -> Self {
        Self {
            oid: 0,
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind: 'r',
            persistence: 'p',
            method: "heap".to_owned(),
            extension: None,
            config,
            file_node: 0,
            readable: true,
            secured: false,
            nameless: false,
        }
    }

    /// `schema.name` for people.
    pub(super) fn shown(&self) -> String {
        super::names::shown(&self.schema, &self.name)
    }
}

/// Lists relations, sorted by the bytes of schema and name. Inside a transaction with a snapshot: as of that.
pub(super) async fn relations(session: &mut Session) -> Result<Vec<Relation>, PostgresError> {
    const DURING: &str = "listing the tables";
    let sql = "SELECT c.oid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, \
        c.relpersistence::text AS persistence, coalesce(am.amname::text, 'heap') AS method, \
        x.extname::text AS extension, g.condition AS config, c.relfilenode::int8 AS file_node, \
        coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
            AND pg_catalog.has_table_privilege(c.oid, 'SELECT'), true) AS readable, \
        c.relrowsecurity AND pg_catalog.row_security_active(c.oid) AS secured \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam AND c.relkind = 'r' \
        LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e' \
        LEFT JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid \
        LEFT JOIN (SELECT u.oid, coalesce(e.extcondition[u.position::int], '') AS condition \
            FROM pg_catalog.pg_extension e, pg_catalog.unnest(e.extconfig) WITH ORDINALITY u (oid, position)) g \
            ON g.oid = c.oid \
        WHERE c.relkind IN ('r', 'p', 'f', 'S') AND c.oid >= 16384";
    let rows = session.run(DURING, sql).await?;
    let columns = if session.any_bytes() { with_nameless_columns(session).await? } else { HashSet::new() };
    let mut out = Vec::new();
    for row in rows {
        let letter = |name: &str| -> Result<char, PostgresError> {
            Ok(column::<String>(&row, name, DURING)?.chars().next().unwrap_or(' '))
        };
        let oid = column(&row, "oid", DURING)?;
        let (schema, name): (String, String) = (column(&row, "schema", DURING)?, column(&row, "name", DURING)?);
        let odd = |name: &str| session.any_bytes() && names::has_stand_ins(name);
        out.push(Relation {
            oid,
            nameless: odd(&schema) || odd(&name) || columns.contains(&oid),
            schema,
            name,
            kind: letter("kind")?,
            persistence: letter("persistence")?,
            method: column(&row, "method", DURING)?,
            extension: column(&row, "extension", DURING)?,
            config: column(&row, "config", DURING)?,
            file_node: column(&row, "file_node", DURING)?,
            readable: column(&row, "readable", DURING)?,
            secured: column(&row, "secured", DURING)?,
        });
    }
    out.sort_by(|a, b| (a.schema.as_bytes(), a.name.as_bytes()).cmp(&(b.schema.as_bytes(), b.name.as_bytes())));
    Ok(out)
}

/// Oids of relations with a column whose name is no UTF-8.
async fn with_nameless_columns(session: &mut Session) -> Result<HashSet<i64>, PostgresError> {
    const DURING: &str = "looking for columns whose names are no UTF-8";
    let sql = "SELECT attrelid::int8 AS oid, attname::text AS name FROM pg_catalog.pg_attribute \
        WHERE attrelid >= 16384 AND attnum > 0 AND NOT attisdropped";
    let mut out = HashSet::new();
    for row in session.run(DURING, sql).await? {
        if names::has_stand_ins(&column::<String>(&row, "name", DURING)?) {
            out.insert(column(&row, "oid", DURING)?);
        }
    }
    Ok(out)
}

/// For `WITH RECURSIVE`: `base (oid, base)` has each domain's type beneath, however many domains lie between.
pub(super) const BASE_TYPES: &str = "domain (oid, base) AS ( \
        SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd' \
        UNION ALL SELECT d.oid, t.typbasetype FROM domain d JOIN pg_catalog.pg_type t ON t.oid = d.base \
        WHERE t.typtype = 'd'), \
    base AS (SELECT d.oid, d.base FROM domain d JOIN pg_catalog.pg_type t ON t.oid = d.base WHERE t.typtype <> 'd')";

/// A column that COPY reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Object id of its type; of a domain, of the type beneath.
    pub(super) base_type: i64,
}

/// Columns that COPY reads and writes, in order, by the table's oid: no dropped and no generated ones; identity stays.
pub(super) async fn columns(
    session: &mut Session,
    server_version: i64,
) -> Result<HashMap<i64, Vec<Column>>, PostgresError> {
    const DURING: &str = "listing the columns";
    let stored = if server_version >= 120_000 { "AND a.attgenerated = ''" } else { "" };
    let sql = format!(
        "WITH RECURSIVE {BASE_TYPES} SELECT a.attrelid::int8 AS oid, a.attname::text AS name, coalesce(b.base, a.atttypid)::int8 AS base_type \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         LEFT JOIN base b ON b.oid = a.atttypid WHERE c.relkind = 'r' AND c.oid >= 16384 \
         AND a.attnum > 0 AND NOT a.attisdropped {stored} ORDER BY a.attrelid, a.attnum"
    );
    let mut out: HashMap<i64, Vec<Column>> = HashMap::new();
    for row in session.run(DURING, sql).await? {
        let column = Column { name: column(&row, "name", DURING)?, base_type: column(&row, "base_type", DURING)? };
        out.entry(super::session::column(&row, "oid", DURING)?).or_default().push(column);
    }
    Ok(out)
}

/// How large a table is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Bytes of main fork and TOAST.
    pub(super) bytes: u64,
    /// Bytes of TOAST alone.
    pub(super) toast_bytes: u64,
    /// Blocks of the main fork.
    pub(super) blocks: u64,
}

/// Sizes now, by oid, for planning. Waits for locks: ask only about tables that are locked.
pub(super) async fn sizes(session: &mut Session, oids: &[i64]) -> Result<HashMap<i64, Size>, PostgresError> {
    const DURING: &str = "asking for the sizes of the tables";
    let list: Vec<String> = oids.iter().map(i64::to_string).collect();
    let sql = format!(
        "SELECT oid, main + toast AS bytes, toast, main / pg_catalog.current_setting('block_size')::int8 AS blocks FROM ( \
         SELECT c.oid::int8 AS oid, coalesce(pg_catalog.pg_relation_size(c.oid), 0) AS main, \
         coalesce(pg_catalog.pg_relation_size(nullif(c.reltoastrelid, 0)), 0) AS toast \
         FROM pg_catalog.pg_class c WHERE c.oid = ANY ('{{{}}}'::oid[])) s",
        list.join(",")
    );
    let mut out = HashMap::new();
    for row in session.run(DURING, sql).await? {
        let number = |name: &str| Ok::<_, PostgresError>(column::<i64>(&row, name, DURING)?.cast_unsigned());
        out.insert(
            column(&row, "oid", DURING)?,
            Size { bytes: number("bytes")?, toast_bytes: number("toast")?, blocks: number("blocks")? },
        );
    }
    Ok(out)
}

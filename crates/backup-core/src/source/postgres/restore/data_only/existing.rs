//! What is in the database that rows go into: does it fit, is it empty, what hangs on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::{Oids, keys, run, shown};
use crate::manifest::TableEntry;
use crate::source::postgres::catalog::BASE_TYPES;
use crate::source::postgres::error::{PostgresError, sql_state};
use crate::source::postgres::restore::Snapshot;
use crate::source::postgres::restore::sql::qualified;

/// Tables asked for rows in one statement.
const BATCH: usize = 500;

const DURING: &str = "looking at the tables that are there";

/// The tables that are there.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// By the manifest's index.
    pub(super) tables: Oids,
    /// Those with rows, as `schema.name`.
    pub(super) filled: Vec<String>,
    /// We may switch triggers off.
    pub(super) may_be_replica: bool,
    /// Why nothing may be loaded.
    pub(super) refusals: Vec<String>,
    /// Columns that rows of the capture have no values for, in words.
    pub(super) defaults: Vec<String>,
    /// What TRUNCATE is told: partition trees whose leaves are all loaded as a whole, other tables alone.
    truncate: Vec<String>,
    /// The partitioned tables of those trees, by object id: their statement triggers would fire.
    pub(super) roots: Vec<i64>,
}

impl Existing {
    /// One statement for all: tables that refer to each other can only go together.
    pub(super) fn truncate(&self) -> String {
        format!("TRUNCATE {}", self.truncate.join(", "))
    }
}

/// A relation of the database.
struct Relation {
    oid: i64,
    kind: String,
    columns: HashMap<String, Column>,
}

struct Column {
    base_type: i64,
    generated: bool,
    /// Without a value it refuses the row.
    needed: bool,
}

/// Looks at everything that a load depends on.
pub(super) async fn look(
    conn: &mut PgConnection,
    snapshot: &Snapshot<'_>,
    selected: &[usize],
    truncate: bool,
) -> Result<Existing, PostgresError> {
    let relations = relations(conn).await?;
    let mut found = Existing { may_be_replica: may_be_replica(conn).await?, ..Existing::default() };
    let mut names = BTreeMap::new();
    for &index in selected {
        let entry = &snapshot.tables[index];
        match relations.get(&(entry.schema.clone(), entry.name.clone())) {
            Some(relation) if relation.kind == "r" => {
                found.refusals.extend(misfits(entry, relation));
                found.defaults.extend(filled_in(entry, relation));
                found.tables.insert(index, relation.oid);
                names.insert(relation.oid, entry);
            }
            Some(relation) => {
                let what = kind(&relation.kind);
                found.refusals.push(format!("`{}` is {what} there, not a plain table", shown(entry)));
            }
            None => found.refusals.push(format!("table `{}` is missing there", shown(entry))),
        }
    }
    found.filled = filled(conn, names.values().copied()).await?;
    if !truncate && !found.filled.is_empty() {
        let (subject, names) = (if found.filled.len() == 1 { "table" } else { "tables" }, found.filled.join("`, `"));
        let verb = if found.filled.len() == 1 { "is" } else { "are" };
        found.refusals.push(format!("{subject} `{names}` {verb} not empty"));
    }
    if truncate {
        found.look_at_truncate(conn, &names).await?;
    }
    for key in keys::of(conn, &found.oids()).await?.iter().filter(|key| key.temporal) {
        found.refusals.push(format!("{} is over periods, which cannot be checked here", key.shown));
    }
    if !found.may_be_replica {
        found.look_at_triggers(conn).await?;
    }
    Ok(found)
}

/// The partitioned tables above these, by their quoted names.
pub(super) async fn above(conn: &mut PgConnection, names: &[String]) -> Result<Vec<String>, PostgresError> {
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text FROM pg_catalog.unnest($1::text[]) AS t(name), \
            LATERAL pg_catalog.pg_partition_root(pg_catalog.to_regclass(t.name)) AS r(root), \
            LATERAL pg_catalog.pg_partition_tree(r.root) AS m \
        JOIN pg_catalog.pg_class c ON c.oid = m.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE NOT m.isleaf";
    let rows = sqlx::query(sql).bind(names).fetch_all(&mut *conn).await.map_err(PostgresError::during(DURING))?;
    rows.iter().map(|row| Ok(qualified(&text(row, 0)?, &text(row, 1)?))).collect()
}

/// Whether each name still means the table that was looked at.
pub(super) async fn named(
    conn: &mut PgConnection,
    snapshot: &Snapshot<'_>,
    found: &Existing,
) -> Result<bool, PostgresError> {
    let entry = |index: &usize| &snapshot.tables[*index];
    let names: Vec<String> =
        found.tables.keys().map(|index| qualified(&entry(index).schema, &entry(index).name)).collect();
    let oids: Vec<i64> = found.tables.values().copied().collect();
    let sql = "SELECT count(*) FROM unnest($1::text[], $2::int8[]) AS t(name, oid) \
        WHERE pg_catalog.to_regclass(t.name)::oid::int8 IS DISTINCT FROM t.oid";
    let row = sqlx::query(sql).bind(names).bind(oids).fetch_one(&mut *conn).await;
    Ok(get::<i64>(&row.map_err(PostgresError::during(DURING))?, 0)? == 0)
}

impl Existing {
    /// What TRUNCATE would refuse: tables that stay and refer to one that goes, rows or not.
    async fn look_at_truncate(
        &mut self,
        conn: &mut PgConnection,
        names: &BTreeMap<i64, &TableEntry>,
    ) -> Result<(), PostgresError> {
        let sql = "SELECT m.oid::int8, m.root::int8, m.leaf, n.nspname::text, c.relname::text FROM ( \
                SELECT t.relid AS oid, r.root, t.isleaf AS leaf FROM ( \
                    SELECT DISTINCT pg_catalog.pg_partition_root(c.oid) AS root FROM pg_catalog.pg_class c \
                    WHERE c.oid::int8 = ANY ($1) AND c.relispartition) r, pg_catalog.pg_partition_tree(r.root) t) m \
            JOIN pg_catalog.pg_class c ON c.oid = m.root JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
        let during = || PostgresError::during(DURING);
        let rows = sqlx::query(sql).bind(self.oids()).fetch_all(&mut *conn).await.map_err(during())?;
        let mut trees: BTreeMap<i64, (String, BTreeSet<i64>, bool)> = BTreeMap::new();
        for row in &rows {
            let (oid, root): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            let leaf: bool = get(row, 2)?;
            let tree = trees.entry(root).or_insert((qualified(&text(row, 3)?, &text(row, 4)?), BTreeSet::new(), true));
            tree.1.insert(oid);
            tree.2 &= !leaf || self.holds(oid);
        }
        let whole: Vec<_> = trees.into_values().filter(|(_, _, whole)| *whole).collect();
        let in_trees: BTreeSet<i64> = whole.iter().flat_map(|(_, members, _)| members.iter().copied()).collect();
        let alone = names.iter().filter(|(oid, _)| !in_trees.contains(oid));
        self.truncate = alone.map(|(_, entry)| format!("ONLY {}", qualified(&entry.schema, &entry.name))).collect();
        self.truncate.extend(whole.into_iter().map(|(root, ..)| root));
        self.roots = in_trees.iter().copied().filter(|oid| !names.contains_key(oid)).collect();
        let going: Vec<i64> = names.keys().copied().chain(in_trees).collect();
        let sql = "SELECT DISTINCT con.conname::text, fn.nspname::text, f.relname::text, pn.nspname::text, p.relname::text \
            FROM pg_catalog.pg_constraint con \
            JOIN pg_catalog.pg_class f ON f.oid = con.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace \
            JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
            WHERE con.contype = 'f' AND con.confrelid::int8 = ANY ($1) AND con.conrelid::int8 <> ALL ($1) ORDER BY 2, 3, 1";
        for row in sqlx::query(sql).bind(going).fetch_all(&mut *conn).await.map_err(during())? {
            let parts: Vec<String> = (0..5).map(|at| text(&row, at)).collect::<Result<_, _>>()?;
            let [key, schema, table, to_schema, to_table] = &parts[..] else { continue };
            self.refusals.push(format!(
                "`{to_schema}.{to_table}` cannot be truncated: `{schema}.{table}` refers to it by foreign key `{key}` and \
                 is not loaded as well"
            ));
        }
        Ok(())
    }

    /// Without a replica's session triggers would fire and foreign keys be checked in the wrong order.
    async fn look_at_triggers(&mut self, conn: &mut PgConnection) -> Result<(), PostgresError> {
        let sql = "SELECT DISTINCT n.nspname::text, c.relname::text, coalesce(con.conname, t.tgname)::text \
            FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            LEFT JOIN pg_catalog.pg_constraint con ON con.oid = t.tgconstraint AND con.contype = 'f' \
            WHERE (t.tgrelid::int8 = ANY ($1) OR t.tgrelid::int8 = ANY ($2) AND t.tgtype & 32 <> 0) \
                AND t.tgenabled <> 'D' AND (con.oid IS NULL OR con.conrelid = t.tgrelid) \
                AND t.tgfoid <> 'pg_catalog.unique_key_recheck'::pg_catalog.regproc ORDER BY 1, 2, 3";
        let asked = sqlx::query(sql).bind(self.oids()).bind(&self.roots).fetch_all(&mut *conn).await;
        let rows = asked.map_err(PostgresError::during(DURING))?;
        let mut names = Vec::with_capacity(rows.len());
        for row in &rows {
            names.push(format!("`{}` of `{}.{}`", text(row, 2)?, text(row, 0)?, text(row, 1)?));
        }
        if !names.is_empty() {
            self.refusals.push(format!(
                "this user may not set session_replication_role, and these triggers and foreign keys would be in the way: \
                 {}: GRANT SET ON PARAMETER session_replication_role, or restore as a superuser",
                names.join(", ")
            ));
        }
        Ok(())
    }
}

/// Whether tables are there that have just the captured columns: reasons why not.
pub(in crate::source::postgres::restore) async fn same(
    conn: &mut PgConnection,
    entries: impl Iterator<Item = &TableEntry>,
) -> Result<Vec<String>, PostgresError> {
    let relations = relations(conn).await?;
    let mut out = Vec::new();
    for entry in entries {
        match relations.get(&(entry.schema.clone(), entry.name.clone())) {
            Some(relation) if relation.kind == "r" => {
                out.extend(differing(entry, relation));
                let more =
                    relation.columns.iter().filter(|(name, found)| !found.generated && !entry.columns.contains(name));
                let mut more: Vec<&String> = more.map(|(name, _)| name).collect();
                more.sort();
                out.extend(more.iter().map(|name| format!("column `{name}` of `{}` was not captured", shown(entry))));
            }
            Some(relation) => {
                out.push(format!("`{}` is {} there, not a plain table", shown(entry), kind(&relation.kind)));
            }
            None => out.push(format!("table `{}` is missing there", shown(entry))),
        }
    }
    Ok(out)
}

fn misfits(entry: &TableEntry, relation: &Relation) -> Vec<String> {
    let mut out = differing(entry, relation);
    let mut needed: Vec<&String> =
        relation.columns.iter().filter(|(_, column)| column.needed).map(|(n, _)| n).collect();
    needed.sort();
    for name in needed.into_iter().filter(|name| !entry.columns.contains(name)) {
        out.push(format!("column `{name}` of `{}` needs a value there, and was not captured", shown(entry)));
    }
    out
}

/// Columns that will have their defaults, because the capture knows nothing of them.
fn filled_in(entry: &TableEntry, relation: &Relation) -> Option<String> {
    let more = relation.columns.iter().filter(|(name, column)| !column.generated && !entry.columns.contains(name));
    let mut more: Vec<&str> = more.map(|(name, _)| name.as_str()).collect();
    more.sort_unstable();
    let subject = if more.len() == 1 { "column" } else { "columns" };
    let names = more.join("`, `");
    (!more.is_empty()).then(|| {
        format!("{subject} `{names}` of `{}`: not captured, so the default or NULL is filled in", shown(entry))
    })
}

/// Captured columns that are missing there, or are others.
fn differing(entry: &TableEntry, relation: &Relation) -> Vec<String> {
    let mut out = Vec::new();
    for (at, name) in entry.columns.iter().enumerate() {
        let column = format!("column `{name}` of `{}`", shown(entry));
        match relation.columns.get(name) {
            None => out.push(format!("{column} is missing there")),
            Some(found) if found.generated => out.push(format!("{column} is generated there")),
            Some(found) if entry.types.get(at).is_some_and(|expected| *expected != found.base_type) => {
                out.push(format!("{column} is of another type there than it was captured"));
            }
            Some(_) => {}
        }
    }
    out
}

fn kind(relkind: &str) -> &'static str {
    match relkind {
        "p" => "a partitioned table",
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        _ => "something else",
    }
}

async fn relations(conn: &mut PgConnection) -> Result<HashMap<(String, String), Relation>, PostgresError> {
    let sql = format!(
        "WITH RECURSIVE {BASE_TYPES} SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, a.attname::text, \
         coalesce(b.base, a.atttypid)::int8, a.attgenerated <> '', \
         a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         LEFT JOIN base b ON b.oid = a.atttypid WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await.map_err(PostgresError::during(DURING))?;
    let mut out: HashMap<(String, String), Relation> = HashMap::new();
    for row in &rows {
        let new = Relation { oid: get(row, 0)?, kind: text(row, 3)?, columns: HashMap::new() };
        let relation = out.entry((text(row, 1)?, text(row, 2)?)).or_insert(new);
        if let Some(name) = get::<Option<String>>(row, 4)? {
            let column = Column { base_type: get(row, 5)?, generated: get(row, 6)?, needed: get(row, 7)? };
            relation.columns.insert(name, column);
        }
    }
    Ok(out)
}

/// The tables that have rows of their own. Rows that a policy would hide are an error (`row_security` is off).
async fn filled(
    conn: &mut PgConnection,
    entries: impl Iterator<Item = &TableEntry>,
) -> Result<Vec<String>, PostgresError> {
    let entries: Vec<&TableEntry> = entries.collect();
    let mut out = Vec::new();
    for batch in entries.chunks(BATCH) {
        let each = batch.iter().enumerate().map(|(at, entry)| {
            format!("SELECT {at} WHERE EXISTS (SELECT FROM ONLY {})", qualified(&entry.schema, &entry.name))
        });
        let sql = format!("{} ORDER BY 1", each.collect::<Vec<_>>().join(" UNION ALL "));
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *conn).await;
        for row in rows.map_err(PostgresError::during("looking for rows in the tables that are there"))? {
            let at: i32 = get(&row, 0)?;
            out.extend(usize::try_from(at).ok().and_then(|at| batch.get(at)).map(|entry| shown(entry)));
        }
    }
    out.sort();
    Ok(out)
}

/// A superuser, or one who was granted the parameter (PostgreSQL 15).
async fn may_be_replica(conn: &mut PgConnection) -> Result<bool, PostgresError> {
    let during = "asking for the right to switch triggers off";
    // Within the transaction that may be open, and without a trace in it.
    let nested = run(conn, during, "SAVEPOINT replica").await.is_ok();
    let begin = if nested { "" } else { "BEGIN; SAVEPOINT replica; " };
    let tried = sqlx::raw_sql(AssertSqlSafe(format!("{begin}SET LOCAL session_replication_role = replica")));
    let tried = tried.execute(&mut *conn).await;
    let end = if nested { "ROLLBACK TO SAVEPOINT replica; RELEASE SAVEPOINT replica" } else { "ROLLBACK" };
    run(conn, during, end).await?;
    match tried {
        Ok(_) => Ok(true),
        Err(error) if sql_state(&error).as_deref() == Some("42501") => Ok(false),
        Err(error) => Err(PostgresError::during(during)(error)),
    }
}

fn get<'r, T>(row: &'r PgRow, at: usize) -> Result<T, PostgresError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(PostgresError::during(DURING))
}

fn text(row: &PgRow, at: usize) -> Result<String, PostgresError> {
    get(row, at)
}

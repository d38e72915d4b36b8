//! Tables beside the live ones: in a new schema of a database that goes on living.
//!
//! ```text
//! BEGIN -> lock, look (live tables, columns) -> CREATE SCHEMA -> CREATE TABLE (LIKE live) -> rows
//!       -> constraints and indexes -> read back and compare -> COMMIT -> ANALYZE
//! ```
//!
//! Why it is safe: all of it is one transaction of one session that only makes new things, in a schema that did not exist;
//! a failure at any point leaves nothing. Live tables are read for their definitions under the weakest lock and never
//! written to. New tables use nothing of the live ones: identities become plain columns, and defaults that draw from
//! sequences are left out.
//!
//! Definitions are those of the live tables, because the types, functions and operators that they need are there. So a table
//! that is missing there, or has other columns than were captured, is refused: that one needs a database of its own. What
//! the live table demands today the captured rows may not fulfil: a constraint or an index that cannot be made is told, and the
//! rows stay.
//!
//! It makes neither foreign keys nor triggers, policies, rules or grants.

mod like;

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::data_only::load::Filling;
use super::data_only::{LOCK_SECONDS, commit, existing, run};
use super::error::RestoreError;
use super::facts::Facts;
use super::proof::{RestoreProof, TableProof};
use super::sql::{ident, qualified};
use super::{RestoreOptions, Selection, Snapshot, Target, session, timescale};
use crate::manifest::{Kept, TableEntry};
use crate::monitor::Monitor;
use crate::source::Streams;
use crate::source::postgres::error::PostgresError;

/// Longest name that the server keeps whole, in bytes.
const NAME_BYTES: usize = 63;

/// What will be made where. Shown to the operator, then handed to [`execute`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// The database, which exists.
    pub database: String,
    /// The schema, which does not.
    pub schema: String,
    /// Tables that are made, as `schema.name` of the live ones.
    pub tables: Vec<String>,
    /// Their rows.
    pub rows: u64,
    /// Plaintext bytes to read from the vault.
    pub bytes: u64,
    /// Things that the operator should know; they do not stop it.
    pub notes: Vec<String>,
    /// Why it will not start. Empty is good.
    pub refusals: Vec<String>,
    selected: Vec<usize>,
    left: Vec<String>,
}

/// Finds out what would be done, without changing anything.
///
/// Of the options, `target` names the database (not [`Target::Replace`]), and `only` what comes back (not all of it).
pub async fn plan(options: &RestoreOptions, schema: &str, snapshot: &Snapshot<'_>) -> Result<Plan, RestoreError> {
    let facts = Facts::read(snapshot.properties)?;
    let (_, imported) = super::plan::consistent(snapshot)?;
    let wanted = |kept: Kept| {
        let entries = snapshot.tables.iter().enumerate();
        entries.filter(move |(_, entry)| entry.kept == kept && options.only.holds(entry))
    };
    let selected: Vec<usize> = wanted(Kept::Streamed).map(|(index, _)| index).collect();
    let entries = || selected.iter().map(|index| &snapshot.tables[*index]);
    let mut plan = Plan {
        database: match &options.target {
            Target::Into(name) => name.clone(),
            Target::Original | Target::Replace => facts.name.clone(),
        },
        schema: schema.to_owned(),
        tables: entries().map(shown).collect(),
        rows: entries().map(|entry| entry.rows).sum(),
        bytes: entries().map(|entry| entry.bytes).sum(),
        notes: vec![
            "definitions are those of the live tables, without foreign keys, triggers, policies and grants; identities and \
             defaults from sequences become plain columns"
                .to_owned(),
        ],
        refusals: Vec::new(),
        left: wanted(Kept::Archive).map(|(_, entry)| shown(entry)).collect(),
        selected: selected.clone(),
    };
    plan.look_at_request(options);
    if imported.is_some() {
        let why = "an imported dump has no rows of its own: bring it back `--into` a new database, and copy from there";
        plan.refusals = vec![why.to_owned()];
    }
    if timescale::among(&facts.extensions).is_some() {
        plan.refusals.push(timescale::WHOLE.to_owned());
    }
    if !plan.refusals.is_empty() {
        return Ok(plan);
    }
    let mut conn = match session::open(&options.connect.with_database(&plan.database)).await {
        Ok(conn) => conn,
        Err(PostgresError::NoDatabase { database, .. }) => {
            plan.refusals
                .push(format!("database `{database}` does not exist, and a schema only goes into one that does"));
            return Ok(plan);
        }
        Err(error) => return Err(error.into()),
    };
    plan.refusals = refusals(&mut conn, &plan, entries()).await?;
    let _ = conn.close().await;
    Ok(plan)
}

impl Plan {
    /// What is wrong with it on any server.
    fn look_at_request(&mut self, options: &RestoreOptions) {
        let schema = &self.schema;
        if schema.is_empty() || schema.len() > NAME_BYTES || schema.starts_with("pg_") || schema.contains('\0') {
            self.refusals.push(format!("`{schema}` cannot be the name of a schema"));
        }
        if options.only == Selection::All {
            self.refusals.push("only tables of one schema go beside the live ones: name them".to_owned());
        }
        if options.target == Target::Replace {
            self.refusals.push("a schema only goes into a database that stays: not with --replace".to_owned());
        }
        if self.selected.is_empty() {
            self.refusals.push(match self.left.first() {
                Some(name) => format!("the rows of `{name}` lie in pg_dump's archive: restore it with --into NAME"),
                None => options.only.lacking(),
            });
        } else if !self.left.is_empty() {
            let names = self.left.join("`, `");
            self.notes.push(format!("not restored, because their rows lie in pg_dump's archive: `{names}`"));
        }
    }
}

/// Why it cannot be done in this database now.
async fn refusals<'a>(
    conn: &mut PgConnection,
    plan: &Plan,
    entries: impl Iterator<Item = &'a TableEntry>,
) -> Result<Vec<String>, PostgresError> {
    let failed = |error| PostgresError::during("looking for the schema")(error);
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname::text = $1), \
        pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    let row = sqlx::query(sql).bind(&plan.schema).fetch_one(&mut *conn).await.map_err(failed)?;
    let (exists, may): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let mut out = existing::same(conn, entries).await?;
    if exists {
        out.push(format!("schema `{}` exists in database `{}`", plan.schema, plan.database));
    }
    if timescale::is_there(conn).await? {
        out.push(timescale::WHOLE.to_owned());
    }
    let all = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE puballtables)";
    if sqlx::query_scalar::<_, bool>(all).fetch_one(&mut *conn).await.map_err(failed)? {
        let why =
            "a publication there is for all tables: its subscribers would be sent rows of tables that they do not have";
        out.push(why.to_owned());
    }
    if !may {
        out.push(format!("this user may not create a schema in database `{}`", plan.database));
    }
    Ok(out)
}

/// Makes schema and tables. `Ok` means: they are committed, and every table was compared and agrees. `Err` means that the
/// database is as it was, but for [`RestoreError::CommitLost`].
///
/// Cancel safety: when the future is dropped before the commit, the server rolls back.
pub async fn execute(
    plan: &Plan,
    options: &RestoreOptions,
    snapshot: &Snapshot<'_>,
    streams: &dyn Streams,
    monitor: &dyn Monitor,
) -> Result<RestoreProof, RestoreError> {
    if !plan.refusals.is_empty() {
        return Err(RestoreError::Refused { refusals: plan.refusals.clone() });
    }
    // The same tables under their new names: rows are loaded and read back by these.
    let chosen: BTreeSet<usize> = plan.selected.iter().copied().collect();
    let mut moved = snapshot.tables.to_vec();
    for index in &chosen {
        moved[*index].schema.clone_from(&plan.schema);
    }
    let moved = Snapshot { streams: snapshot.streams, tables: &moved, properties: snapshot.properties };
    let filling =
        Filling { database: &plan.database, selected: &plan.selected, options, snapshot: &moved, streams, monitor };
    let mut conn = session::open_maintenance(&options.connect.with_database(&plan.database)).await?;
    let (tables, bring_back, mut notes) = match fill(&mut conn, plan, snapshot, &filling).await {
        Ok(filled) => filled,
        Err(error) => {
            // The server rolls back when the session ends, whatever state it is in.
            let _ = conn.close_hard().await;
            return Err(error);
        }
    };
    filling.phase("commit");
    commit(conn, &plan.database).await?;
    filling.analyze().await;
    notes.extend(plan.left.iter().map(|name| format!("not restored, its rows lie in pg_dump's archive: {name}")));
    Ok(RestoreProof {
        database: plan.database.clone(),
        replaced: None,
        tables,
        large_objects: None,
        without_rows: Vec::new(),
        created_roles: Vec::new(),
        expected: Vec::new(),
        not_asked: options.expect.names(),
        bring_back,
        notes,
    })
}

/// Tables compared, statements that bring their rows back, notes.
type Filled = (Vec<TableProof>, Vec<String>, Vec<String>);

/// Everything from BEGIN to just before COMMIT.
async fn fill(
    conn: &mut PgConnection,
    plan: &Plan,
    live: &Snapshot<'_>,
    filling: &Filling<'_>,
) -> Result<Filled, RestoreError> {
    let entries = || plan.selected.iter().map(|index| &live.tables[*index]);
    filling.phase("tables");
    run(conn, "beginning", &format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")).await?;
    let names: Vec<String> = entries().map(|entry| format!("ONLY {}", qualified(&entry.schema, &entry.name))).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
    run(conn, "locking the live tables, which somebody else may be changing,", &lock).await?;
    // Again, and this time it stays true.
    let refusals = refusals(conn, plan, entries()).await?;
    if !refusals.is_empty() {
        return Err(RestoreError::Refused { refusals });
    }
    run(conn, "making the schema", &format!("CREATE SCHEMA {}", ident(&plan.schema))).await?;
    let mut tables = Vec::with_capacity(plan.selected.len());
    for entry in entries() {
        tables.push(like::Table::make(conn, entry, &plan.schema).await?);
    }
    filling.phase("rows");
    filling.load(conn).await?;
    filling.phase("constraints and indexes");
    let mut notes = Vec::new();
    for table in &tables {
        notes.extend(table.complete(conn).await?);
    }
    filling.phase("comparing");
    let proofs = filling.compare(conn).await?;
    if proofs.iter().any(|table| !table.ok()) {
        return Err(RestoreError::Differs { proofs });
    }
    run(conn, "setting up the commit", "SET LOCAL synchronous_commit = on").await?;
    Ok((proofs, tables.into_iter().map(|table| table.bring_back).collect(), notes))
}

fn shown(entry: &TableEntry) -> String {
    format!("{}.{}", entry.schema, entry.name)
}

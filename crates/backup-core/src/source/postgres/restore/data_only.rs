//! Rows only: into tables that are there already, in a database that goes on living.
//!
//! ```text
//! BEGIN -> lock -> look (tables, columns, emptiness) -> TRUNCATE, if asked -> rows -> read back and compare
//!       -> foreign keys -> sequences -> COMMIT -> ANALYZE
//! ```
//!
//! Why it is safe: all of it is one transaction of one session, so a failure at any point, also a TRUNCATE before it,
//! leaves the database as it was; sequences too, because they are restarted (`ALTER SEQUENCE`, which rolls back) before
//! they are set. The tables are locked before they are looked at, so that nobody else's row can come in between. Every
//! reason not to start is found before the first byte and told at once.
//!
//! Triggers do not fire and foreign keys are not checked row by row: the session is a replica's
//! (`session_replication_role`), and triggers that fire even there are switched off for the transaction. In return each
//! foreign key of the loaded tables is checked as a whole before the commit, and deferrable unique and exclusion
//! constraints, which are triggers as well, stay on. A user who may not be a replica's is refused where a trigger or a
//! foreign key would matter.
//!
//! It never truncates unless asked, never cascades, never freezes, and brings neither definitions nor large objects nor
//! rows that lie in `pg_dump`'s archive: these are named.

pub(super) mod existing;
mod keys;
pub(super) mod load;
mod sequences;
mod triggers;

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use self::existing::Existing;
use self::load::Filling;
use super::archive::{Archive, Route};
use super::error::RestoreError;
use super::facts::Facts;
use super::proof::{RestoreProof, TableProof};
use super::sql::qualified;
use super::{RestoreOptions, Selection, Snapshot, Target, session, timescale};
use crate::manifest::{Kept, TableEntry};
use crate::monitor::Monitor;
use crate::source::Streams;
use crate::source::postgres::clients::{Clients, ClientsOption};
use crate::source::postgres::error::PostgresError;

/// How long to wait for the locks: whoever queues behind us waits as long.
pub(super) const LOCK_SECONDS: u32 = 30;

/// What will be loaded where. Shown to the operator, then handed to [`execute`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// The database, which exists.
    pub database: String,
    /// Tables that get rows.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
    /// Plaintext bytes to read from the vault.
    pub bytes: u64,
    /// Tables whose present rows go, as `schema.name`; empty tables are not among them.
    pub emptied: Vec<String>,
    /// Things that the operator should know; they do not stop it.
    pub notes: Vec<String>,
    /// Why it will not start. Empty is good.
    pub refusals: Vec<String>,
    truncate: bool,
    selected: Vec<usize>,
    left: Vec<String>,
    sequences: Vec<sequences::Captured>,
}

/// Finds out what would be done, without changing anything. With `truncate` tables may have rows, which then go.
///
/// Of the options, `target` names the database (not [`Target::Replace`]), and `only` what is loaded.
pub async fn plan(
    options: &RestoreOptions,
    truncate: bool,
    snapshot: &Snapshot<'_>,
    streams: &dyn Streams,
) -> Result<Plan, RestoreError> {
    let facts = Facts::read(snapshot.properties)?;
    let (archive, imported) = super::plan::consistent(snapshot)?;
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
        tables: selected.len(),
        rows: entries().map(|entry| entry.rows).sum(),
        bytes: entries().map(|entry| entry.bytes).sum(),
        emptied: Vec::new(),
        notes: vec![
            "one session loads all tables, in one transaction: they are locked until it ends".to_owned(),
            "definitions, indexes, owners and privileges stay as they are there; materialized views are not refreshed"
                .to_owned(),
        ],
        refusals: Vec::new(),
        truncate,
        left: wanted(Kept::Archive).map(|(_, entry)| shown(entry)).collect(),
        sequences: Vec::new(),
        selected,
    };
    plan.look_at_snapshot(options, snapshot);
    if timescale::among(&facts.extensions).is_some() {
        plan.refusals.push(timescale::WHOLE.to_owned());
    }
    if imported.is_some() {
        let why = "an imported dump has no rows of its own: bring it back `--into` a new database, and copy from there";
        plan.refusals = vec![why.to_owned()];
        return Ok(plan);
    }
    let mut conn = match session::open(&options.connect.with_database(&plan.database)).await {
        Ok(conn) => conn,
        Err(PostgresError::NoDatabase { database, .. }) => {
            plan.refusals.push(format!("database `{database}` does not exist, and rows only go into one that does"));
            return Ok(plan);
        }
        Err(error) => return Err(error.into()),
    };
    let found = existing::look(&mut conn, snapshot, &plan.selected, truncate).await?;
    if timescale::is_there(&mut conn).await? {
        plan.refusals.push(timescale::WHOLE.to_owned());
    }
    plan.refusals.extend(found.refusals);
    plan.notes.extend(found.defaults);
    plan.emptied = found.filled;
    let _ = conn.close().await;
    if !matches!(options.clients, ClientsOption::Wrap(_)) {
        let clients = Clients::find(&options.clients, facts.client_major).await?;
        let route = Route {
            clients: &clients,
            option: &options.clients,
            to: &options.connect,
            server_major: facts.server_major,
            no_tablespaces: false,
        };
        plan.sequences = sequences::captured(&Archive::open(&route, streams, archive).await?).await?;
    }
    Ok(plan)
}

impl Plan {
    fn look_at_snapshot(&mut self, options: &RestoreOptions, snapshot: &Snapshot<'_>) {
        if self.selected.is_empty() {
            self.refusals.push(match self.left.first() {
                Some(name) => format!("the rows of `{name}` lie in pg_dump's archive: restore it with --into NAME"),
                None => "the snapshot has no such table".to_owned(),
            });
        }
        if options.target == Target::Replace {
            self.refusals.push("rows only go into a database that stays: not with --replace".to_owned());
        }
        if matches!(options.clients, ClientsOption::Wrap(_)) {
            let why = "sequences are read by client programs on this machine, not by wrapped ones";
            self.refusals.push(why.to_owned());
        }
        if !self.left.is_empty() {
            let names = self.left.join("`, `");
            self.notes.push(format!("not loaded, because their rows lie in pg_dump's archive: `{names}`"));
        }
        let objects = snapshot.properties.iter().find(|property| property.name == "large_objects");
        let count = objects.and_then(|property| property.value.get("count")?.as_u64());
        if options.only == Selection::All && count != Some(0) {
            self.notes.push("large objects are not loaded".to_owned());
        }
        if !options.expect.checks.is_empty() {
            let names = options.expect.names().join("`, `");
            self.notes.push(format!("only rows come back, so these checks are not asked: `{names}`"));
        }
    }
}

/// Loads the rows. `Ok` means: they are committed, every table was compared and agrees, and every foreign key of these
/// tables holds. `Err` means that the database is as it was, but for [`RestoreError::CommitLost`].
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
    let mut conn = session::open_maintenance(&options.connect.with_database(&plan.database)).await?;
    let work = Work { plan, options, snapshot, streams, monitor };
    let (tables, notes) = match work.fill(&mut conn).await {
        Ok(filled) => filled,
        Err(error) => {
            // The server rolls back when the session ends, whatever state it is in.
            let _ = conn.close_hard().await;
            return Err(error);
        }
    };
    work.phase("commit");
    commit(conn, &plan.database).await?;
    work.filling().analyze().await;
    let loaded: BTreeSet<String> = tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
    let without_rows = snapshot.tables.iter().map(shown).filter(|name| !loaded.contains(name));
    Ok(RestoreProof {
        database: plan.database.clone(),
        replaced: None,
        tables,
        large_objects: None,
        without_rows: without_rows.collect(),
        created_roles: Vec::new(),
        expected: Vec::new(),
        not_asked: options.expect.names(),
        bring_back: Vec::new(),
        notes,
    })
}

/// The last statement. It is not cut in two by a signal; what it does when the connection breaks nobody can know.
pub(super) async fn commit(mut conn: PgConnection, database: &str) -> Result<(), RestoreError> {
    let database = database.to_owned();
    let done = crate::critical::finish(async move {
        let done = run(&mut conn, "committing the rows", "COMMIT").await;
        let _ = conn.close().await;
        done
    });
    match done.await {
        Some(Ok(())) => Ok(()),
        Some(Err(error @ PostgresError::Query { .. })) => Err(error.into()),
        Some(Err(source)) => Err(RestoreError::CommitLost { database, source }),
        None => Err(RestoreError::CommitLost { database, source: PostgresError::disturbed("the commit", None) }),
    }
}

/// Runs statements by the simple protocol.
pub(super) async fn run(conn: &mut PgConnection, during: &str, sql: &str) -> Result<(), PostgresError> {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut *conn).await.map(drop).map_err(PostgresError::during(during))
}

fn shown(entry: &TableEntry) -> String {
    format!("{}.{}", entry.schema, entry.name)
}

struct Work<'a> {
    plan: &'a Plan,
    options: &'a RestoreOptions,
    snapshot: &'a Snapshot<'a>,
    streams: &'a dyn Streams,
    monitor: &'a dyn Monitor,
}

impl Work<'_> {
    /// Everything from BEGIN to just before COMMIT: the comparison of each table, and what else was done.
    async fn fill(&self, conn: &mut PgConnection) -> Result<(Vec<TableProof>, Vec<String>), RestoreError> {
        let plan = self.plan;
        self.phase("locks");
        run(conn, "beginning", &format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")).await?;
        self.lock(conn).await?;
        // Again, and this time it stays true.
        let found = existing::look(conn, self.snapshot, &plan.selected, plan.truncate).await?;
        let mut refusals = found.refusals.clone();
        let new = found.filled.iter().filter(|name| !plan.emptied.contains(name));
        // Nobody was told that these would go. Without `truncate` they are refused already.
        refusals.extend(
            new.filter(|_| plan.truncate).map(|name| format!("table `{name}` has got rows since it was planned")),
        );
        if !refusals.is_empty() {
            return Err(RestoreError::Refused { refusals });
        }
        let keys = keys::of(conn, &found.oids()).await?;
        let others: BTreeSet<&str> =
            keys.iter().filter(|key| !found.holds(key.target_oid)).map(|key| key.lock.as_str()).collect();
        for other in others {
            // Whoever is referred to must not go before the commit.
            run(conn, "locking a table that is referred to", &format!("LOCK TABLE {other} IN SHARE MODE")).await?;
        }
        if found.may_be_replica {
            run(conn, "switching triggers off", "SET LOCAL session_replication_role = replica").await?;
        }
        let switched = triggers::switch(conn, &found).await?;
        if plan.truncate {
            run(conn, "emptying the tables", &found.truncate()).await?;
        }
        self.phase("rows");
        self.filling().load(conn).await?;
        self.phase("comparing");
        run(conn, "checking deferred constraints", "SET CONSTRAINTS ALL IMMEDIATE").await?;
        let tables = self.filling().compare(conn).await?;
        if tables.iter().any(|table| !table.ok()) {
            return Err(RestoreError::Differs { proofs: tables });
        }
        self.phase("foreign keys");
        keys::hold(conn, &keys).await?;
        triggers::back(conn, &switched).await?;
        self.phase("sequences");
        let oids = found.oids().into_iter().collect();
        let mut notes = sequences::set(conn, &plan.sequences, &self.options.only, &oids).await?;
        notes.extend(plan.left.iter().map(|name| format!("not loaded, its rows lie in pg_dump's archive: {name}")));
        // Locks hold tables, not their names: the schema may have been another one for a while.
        if !existing::named(conn, self.snapshot, &found).await? {
            let what = "tables were renamed or replaced while their rows were loaded";
            return Err(PostgresError::disturbed(what.to_owned(), None).into());
        }
        run(conn, "setting up the commit", "SET LOCAL synchronous_commit = on").await?;
        Ok((tables, notes))
    }

    /// All tables at once, so that two of us cannot each hold half. With rows to lose nobody may read meanwhile.
    /// The tables above partitions too: or a new partition could come under one of them, and be emptied with it.
    async fn lock(&self, conn: &mut PgConnection) -> Result<(), RestoreError> {
        let mode = if self.plan.truncate { "ACCESS EXCLUSIVE" } else { "SHARE ROW EXCLUSIVE" };
        let mut names: Vec<String> =
            self.filling().entries().map(|(_, entry)| qualified(&entry.schema, &entry.name)).collect();
        names.extend(existing::above(conn, &names).await?);
        let only = names.iter().map(|name| format!("ONLY {name}")).collect::<Vec<_>>().join(", ");
        let during = "locking the tables, which somebody else may be using,";
        Ok(run(conn, during, &format!("LOCK TABLE {only} IN {mode} MODE")).await?)
    }

    fn phase(&self, phase: &str) {
        self.filling().phase(phase);
    }

    fn filling(&self) -> Filling<'_> {
        Filling {
            database: &self.plan.database,
            selected: &self.plan.selected,
            options: self.options,
            snapshot: self.snapshot,
            streams: self.streams,
            monitor: self.monitor,
        }
    }
}

/// Tables of the live database by the manifest's index, for the parts of this module.
type Oids = BTreeMap<usize, i64>;

impl Existing {
    /// Object ids of the tables that are loaded.
    fn oids(&self) -> Vec<i64> {
        self.tables.values().copied().collect()
    }

    fn holds(&self, oid: i64) -> bool {
        self.tables.values().any(|known| *known == oid)
    }
}

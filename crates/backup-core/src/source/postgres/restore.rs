//! Restore of a PostgreSQL snapshot into a new database, proved before it gets its name.
//!
//! ```text
//! roles -> CREATE DATABASE <name>__restoring_<id> -> pre-data -> archive's data -> rows, in parallel
//!       -> post-data -> ANALYZE -> read back and compare -> checks -> rename
//! ```
//!
//! Why it is safe: everything happens in a database of a name that nobody uses, that others cannot enter, and that is
//! dropped (or kept, on request) when anything fails. Only the very last transaction gives the final name, after each
//! table's rows were compared with what the manifest says of the capture. An existing database is never written to;
//! [`Target::Replace`] renames it in that same transaction and keeps it.
//!
//! It never alters an existing role, never puts a password into an argument or a message, and holds no more than one
//! row and one member of a tar per session in memory.

mod analyze;
mod archive;
pub mod data_only;
mod database;
mod differing;
mod error;
mod expect;
mod extensions;
mod facts;
mod globals;
mod imported;
pub mod into_schema;
mod load;
mod nameless;
mod plan;
mod post_data;
mod proof;
mod reorder;
mod rows;
mod select;
mod session;
pub(super) mod sql;
mod timescale;
mod types;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use sqlx::{AssertSqlSafe, Connection as _};

use self::archive::{Archive, Route};
pub use self::differing::Differing;
pub use self::error::RestoreError;
pub use self::expect::{Answer, ExpectProof, Expectation, Expectations};
use self::load::{Loaded, Loader};
pub use self::plan::RestorePlan;
pub use self::proof::{LargeObjectsProof, RestoreProof, TableProof};
use self::sql::{ident, qualified};
use super::clients::ClientsOption;
use super::error::PostgresError;
use super::large_objects::LargeObjects;
use super::options::ConnectOptions;
use super::wire::Wire;
use crate::fingerprint::RowSum;
use crate::manifest::{Kept, Property, Stream, StreamKind, TableEntry};
use crate::monitor::{Event, Monitor};
use crate::source::Streams;

/// What the manifest says of one snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Streams; number *n* is element *n - 1*.
    pub streams: &'a [Stream],
    /// Tables.
    pub tables: &'a [TableEntry],
    /// Properties.
    pub properties: &'a [Property],
}

impl Snapshot<'_> {
    fn stream(&self, number: u32) -> Option<&Stream> {
        self.streams.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    fn first(&self, kind: StreamKind) -> Option<u32> {
        let at = self.streams.iter().position(|stream| stream.kind == kind)?;
        u32::try_from(at + 1).ok()
    }
}

/// Where a restore goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The captured database's name; refused when it exists.
    Original,
    /// This name; refused when it exists.
    Into(String),
    /// The captured database's name; a database that has it is kept under a dated one.
    Replace,
}

/// What of a snapshot comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    All,
    /// The rows of one table; of everything else the definitions.
    Table {
        /// Schema.
        schema: String,
        /// Table.
        name: String,
    },
    /// The rows of one schema's tables; of everything else the definitions.
    Schema(String),
}

impl Selection {
    /// How a refusal begins that says that the snapshot has nothing of the kind.
    pub const LACKS: &str = "the snapshot has no table";

    /// [`Selection::LACKS`], with what was asked for.
    pub(super) fn lacking(&self) -> String {
        match self {
            Self::All => Self::LACKS.to_owned(),
            Self::Table { schema, name } => format!("{} `{schema}.{name}`", Self::LACKS),
            Self::Schema(schema) => format!("{} in schema `{schema}`", Self::LACKS),
        }
    }
}

/// How far the proof goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Streamed rows: the server's count of loaded rows and the fingerprint of the bytes that it took. Others are
    /// read back.
    Counts,
    /// Every table is read back and its fingerprint compared.
    Content,
}

/// From this size on it is worth a process of its own to build a table's indexes early: 64 MiB.
pub const EARLY_BYTES: u64 = 64 << 20;

/// What a restore is asked to do.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Name of the source, for events.
    pub source: String,
    /// The server, with a user that may create databases (best a superuser); its database is not used.
    pub connect: ConnectOptions,
    /// A database to work from, which exists and is not the target: `postgres`.
    pub maintenance: String,
    /// Where the client programs are.
    pub clients: ClientsOption,
    /// Where it goes.
    pub target: Target,
    /// What comes back.
    pub only: Selection,
    /// Sessions that load rows, and workers that build indexes; at least 1.
    pub jobs: usize,
    /// Tables with so many bytes of rows get their indexes as soon as they have their rows, while others are loaded; best
    /// [`EARLY_BYTES`].
    pub early_bytes: u64,
    /// How far the proof goes.
    pub verify: Verify,
    /// What must be true of the restored database; asked when all of it comes back.
    pub expect: Expectations,
    /// Makes the working name unique: a few of `[a-z0-9]`.
    pub id: String,
    /// The current instant: dates the name under which a replaced database is kept.
    pub at: DateTime<Utc>,
    /// A restore that fails leaves its working database to look at, closed to others, instead of dropping it.
    pub keep_failed: bool,
}

impl RestoreOptions {
    fn maintenance(&self) -> ConnectOptions {
        self.connect.with_database(&self.maintenance)
    }
}

/// Finds out what a restore would do, without changing anything. Reasons not to start are in the plan, not errors.
pub async fn plan(
    options: &RestoreOptions,
    snapshot: &Snapshot<'_>,
    streams: &dyn Streams,
) -> Result<RestorePlan, RestoreError> {
    plan::plan(options, snapshot, streams).await
}

/// Restores. `Ok` means: the database has its final name, and every table was compared and agrees.
///
/// Cancel safety: when the future is dropped, the working database stays under its working name.
pub async fn execute(
    plan: &RestorePlan,
    options: &RestoreOptions,
    snapshot: &Snapshot<'_>,
    streams: &dyn Streams,
    monitor: &dyn Monitor,
) -> Result<RestoreProof, RestoreError> {
    if !plan.refusals.is_empty() {
        return Err(RestoreError::Refused { refusals: plan.refusals.clone() });
    }
    let restore = Restore { plan, options, snapshot, streams, monitor };
    let mut conn = session::open_maintenance(&options.maintenance()).await?;
    restore.phase("roles");
    plan.roles.0.create(&mut conn, plan.superuser).await?;
    restore.phase("database");
    let tablespace = plan.missing_tablespaces.is_empty();
    let sql = database::create(&plan.facts, &plan.working, plan.server(), tablespace);
    database::run(&mut conn, &format!("creating database `{}`", plan.working), &[sql]).await?;
    let _ = conn.close().await;
    let filled = restore.fill().await;
    if filled.is_err() {
        restore.give_up().await;
    }
    let proof = filled?;
    restore.name().await?;
    Ok(proof)
}

struct Restore<'a> {
    plan: &'a RestorePlan,
    options: &'a RestoreOptions,
    snapshot: &'a Snapshot<'a>,
    streams: &'a dyn Streams,
    monitor: &'a dyn Monitor,
}

impl Restore<'_> {
    /// The last step. When it fails the working database is whole and was compared: it stays.
    async fn name(&self) -> Result<(), RestoreError> {
        self.phase("name");
        let (working, name) = (&self.plan.working, &self.plan.database);
        let (plan, maintenance) = (self.plan.clone(), self.options.maintenance());
        // Not to be cut in two by a signal: in the middle of it the live database is closed to everybody.
        let named = crate::critical::finish(async move {
            let (server, RestorePlan { facts, working, database: name, .. }) = (plan.server(), &plan);
            let mut conn = session::open_maintenance(&maintenance).await?;
            match &plan.kept_as {
                None => database::finish(&mut conn, facts, working, name, server).await,
                Some(kept) => database::replace(&mut conn, &maintenance, facts, working, name, kept, server).await,
            }
        });
        let named = named.await.unwrap_or_else(|| {
            let during = format!("naming database `{name}`");
            Err(PostgresError::disturbed(during, None).into())
        });
        if named.is_err() {
            let text = format!("database `{working}` is complete and compared, but could not be named `{name}`");
            self.monitor.event(Event::Warning { text });
        }
        named
    }

    async fn fill(&self) -> Result<RestoreProof, RestoreError> {
        let (plan, options) = (self.plan, self.options);
        // No session stays open for all the hours of a restore: a timeout or a firewall would cut it.
        let mut conn = session::open_maintenance(&options.maintenance()).await?;
        let properties = database::properties(&plan.facts, &plan.working, plan.server())?;
        database::run(&mut conn, &format!("setting properties of database `{}`", plan.working), &properties).await?;
        let _ = conn.close().await;

        let to = options.connect.with_database(&plan.working);
        let timescale = timescale::among(&plan.facts.extensions);
        if let Some(extension) = timescale {
            timescale::before(&to, extension).await?;
        }
        let tables =
            if plan.imported.is_some() { self.fill_imported(&to).await? } else { self.fill_captured(&to).await? };
        if tables.iter().any(|table| !table.ok()) {
            return Err(RestoreError::Differs { proofs: tables });
        }
        let whole = options.only == Selection::All;
        let large_objects = if whole { self.compare_large_objects(&to).await? } else { None };
        if let Some(extension) = timescale {
            timescale::after(&to, extension).await?;
        }
        let expected = if whole {
            self.phase("checks");
            expect::ask(&to, &options.expect).await?
        } else {
            Vec::new()
        };
        let without_rows = self.snapshot.tables.iter().enumerate().filter(|(index, _)| !plan.selected.contains(index));
        let selected = plan.selected.iter().map(|index| &self.snapshot.tables[*index]);
        Ok(RestoreProof {
            database: plan.database.clone(),
            replaced: plan.kept_as.clone(),
            tables,
            large_objects,
            without_rows: without_rows.map(|(_, entry)| format!("{}.{}", entry.schema, entry.name)).collect(),
            created_roles: plan.create_roles.clone(),
            expected,
            not_asked: if whole { Vec::new() } else { options.expect.names() },
            bring_back: match options.only {
                Selection::All => Vec::new(),
                _ => selected
                    .map(|entry| select::bring_back(&options.connect, (&plan.database, &plan.facts.name), entry))
                    .collect(),
            },
            notes: Vec::new(),
        })
    }

    /// What an archive has before the rows that are not in it: definitions, and its own rows.
    async fn begin_archive<'a>(&'a self, to: &'a ConnectOptions) -> Result<(Archive<'a>, select::Lists), RestoreError> {
        let (plan, options) = (self.plan, self.options);
        let route = Route {
            clients: &plan.clients,
            option: &options.clients,
            to,
            server_major: plan.server_major,
            no_tablespaces: !plan.missing_tablespaces.is_empty(),
        };
        let archive = Archive::open(&route, self.streams, plan.archive).await?;
        let lists = select::Lists::make(&archive, &options.only).await?;
        self.phase("pre-data");
        archive.pre_data().await?;
        self.phase("archive data");
        archive.data(lists.data()).await?;
        Ok((archive, lists))
    }

    /// Fills the working database `to` from a capture, and compares.
    async fn fill_captured(&self, to: &ConnectOptions) -> Result<Vec<TableProof>, RestoreError> {
        let (plan, options) = (self.plan, self.options);
        let (archive, lists) = self.begin_archive(to).await?;

        self.phase("rows");
        let post_data = archive.post_data(lists.post_data()).await?;
        let work = Loader {
            snapshot: self.snapshot,
            streams: self.streams,
            to,
            monitor: self.monitor,
            jobs: options.jobs.max(1),
            tables: &plan.selected,
            early: Some((&post_data, options.early_bytes)),
        };
        let loaded = work.load().await?;
        self.phase("post-data");
        post_data.finish(options.jobs).await?;
        self.phase("analyze");
        analyze::all(to, options.jobs, self.monitor).await?;
        self.phase("comparing");
        self.compare(to, &loaded).await
    }

    /// Compares every selected table, several at a time; leaves that went through their root are compared there.
    async fn compare(&self, to: &ConnectOptions, loaded: &Loaded) -> Result<Vec<TableProof>, RestoreError> {
        let moved: BTreeSet<&(String, String)> = loaded.through_root.keys().collect();
        let leaves = if moved.is_empty() { Vec::new() } else { self.leaves(to, &moved).await? };
        let among_leaves = |index: &usize| leaves.iter().any(|(_, indexes)| indexes.contains(index));
        let alone: Vec<usize> = self.plan.selected.iter().copied().filter(|index| !among_leaves(index)).collect();
        let next = std::sync::Mutex::new(alone.iter());
        let proofs = std::sync::Mutex::new(Vec::new());
        let worker = || async {
            let mut conn: Option<Wire> = None;
            while let Some(&index) = next.lock().ok().and_then(|mut next| next.next()) {
                let proof = self.compare_one(to, &mut conn, index, loaded).await?;
                if let Ok(mut proofs) = proofs.lock() {
                    proofs.push((index, proof));
                }
            }
            if let Some(conn) = conn {
                conn.close().await;
            }
            Ok::<_, RestoreError>(())
        };
        let workers = self.options.jobs.clamp(1, alone.len().max(1));
        try_join_all((0..workers).map(|_| worker())).await?;
        let mut proofs = proofs.into_inner().unwrap_or_default();
        for (root, indexes) in &leaves {
            proofs.push((indexes.first().copied().unwrap_or(usize::MAX), self.compare_root(to, root, indexes).await?));
        }
        proofs.sort_by_key(|(index, _)| *index);
        Ok(proofs.into_iter().map(|(_, proof)| proof).collect())
    }

    async fn compare_one(
        &self,
        to: &ConnectOptions,
        conn: &mut Option<Wire>,
        index: usize,
        loaded: &Loaded,
    ) -> Result<TableProof, RestoreError> {
        let entry = &self.snapshot.tables[index];
        let read = self.options.verify == Verify::Content || entry.kept == Kept::Archive;
        let expected = RowSum { rows: entry.rows, fingerprint: entry.fingerprint };
        let mut differing = None;
        let found = if nameless::is_one(entry) {
            nameless::read_back(to, entry).await?
        } else if read {
            // What the archive has of an extension's table is what the extension wants dumped, not all of its rows.
            let narrowed = if entry.kept == Kept::Archive {
                // A limit of connections must hold for both.
                if let Some(idle) = conn.take() {
                    idle.close().await;
                }
                let mut asking = session::open(to).await?;
                let narrowed = facts::dumped_rows(&mut asking, entry).await?;
                let _ = asking.close().await;
                narrowed
            } else {
                None
            };
            let mut session = match conn.take() {
                Some(session) => session,
                None => session::open_wire(to).await?,
            };
            let found = load::read_back(&mut session, entry, narrowed.as_deref()).await?;
            if found != expected && entry.kept == Kept::Streamed {
                differing = load::differing(&mut session, &[entry], None, self.streams).await?;
            }
            *conn = Some(session);
            found
        } else {
            loaded.sums.get(&index).copied().unwrap_or_default()
        };
        Ok(TableProof {
            schema: entry.schema.clone(),
            name: entry.name.clone(),
            expected,
            found,
            read_back: read,
            differing,
        })
    }

    /// Large objects came with the archive, which says nothing of how many: they are counted here, and their bytes read back
    /// where contents are compared.
    async fn compare_large_objects(&self, to: &ConnectOptions) -> Result<Option<LargeObjectsProof>, RestoreError> {
        let Some(captured) = LargeObjects::captured(self.snapshot.properties) else { return Ok(None) };
        let mut session = session::open_wire(to).await?;
        let contents = captured.contents.is_some() && self.options.verify == Verify::Content;
        let found = LargeObjects::read(&mut session, contents).await?;
        session.close().await;
        match captured.difference(&found) {
            Some(difference) => Err(RestoreError::LargeObjects { difference }),
            None => Ok(Some(LargeObjectsProof { count: found.count, read_back: contents })),
        }
    }

    /// Rows may have moved between the leaves of a tree: the tree as a whole must hold what its leaves held.
    async fn compare_root(
        &self,
        to: &ConnectOptions,
        root: &(String, String),
        indexes: &[usize],
    ) -> Result<TableProof, RestoreError> {
        let target = qualified(&root.0, &root.1);
        let entries: Vec<&TableEntry> = indexes.iter().map(|index| &self.snapshot.tables[*index]).collect();
        let first = entries.first().filter(|first| {
            entries.iter().all(|entry| entry.encoding == first.encoding && entry.format == first.format)
        });
        let first = first.ok_or_else(|| RestoreError::Manifest {
            why: format!("the partitions of {target} differ in encoding or format and cannot be compared there"),
        })?;
        let mut expected = RowSum::default();
        for entry in &entries {
            expected.merge(&if entry.columns == first.columns {
                RowSum { rows: entry.rows, fingerprint: entry.fingerprint }
            } else {
                reorder::sum(entry, &first.columns, self.streams).await?
            });
        }
        let mut conn = session::open_wire(to).await?;
        let found = load::read_back(&mut conn, first, Some(&target)).await?;
        let alike = entries.iter().all(|entry| entry.columns == first.columns);
        let differing = if found != expected && alike {
            load::differing(&mut conn, &entries, Some(&target), self.streams).await?
        } else {
            None
        };
        conn.close().await;
        Ok(TableProof { schema: root.0.clone(), name: root.1.clone(), expected, found, read_back: true, differing })
    }

    /// The selected tables below each root.
    async fn leaves(
        &self,
        to: &ConnectOptions,
        roots: &BTreeSet<&(String, String)>,
    ) -> Result<Vec<((String, String), Vec<usize>)>, RestoreError> {
        let mut conn = session::open(to).await?;
        let during = || PostgresError::during("listing the leaves of a partition tree");
        let mut out = Vec::new();
        for root in roots {
            let sql = "SELECT n.nspname::text, c.relname::text FROM pg_partition_tree($1::regclass) t \
                       JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf";
            let query = sqlx::query_as(sql).bind(qualified(&root.0, &root.1));
            let names: BTreeSet<(String, String)> =
                query.fetch_all(&mut conn).await.map_err(during())?.into_iter().collect();
            let indexes = self.plan.selected.iter().copied().filter(|index| {
                let entry = &self.snapshot.tables[*index];
                names.contains(&(entry.schema.clone(), entry.name.clone()))
            });
            out.push(((*root).clone(), indexes.collect()));
        }
        let _ = conn.close().await;
        Ok(out)
    }

    /// After a failure: the working database goes, or stays for a look under its working name.
    async fn give_up(&self) {
        let working = &self.plan.working;
        let dropped = async {
            if self.options.keep_failed {
                return Ok(false);
            }
            let mut conn = session::open(&self.options.connect.with_database(working)).await?;
            database::drop_subscriptions(&mut conn).await?;
            let _ = conn.close().await;
            let mut conn = session::open_maintenance(&self.options.maintenance()).await?;
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(working));
            let during = PostgresError::during(format!("dropping database `{working}`"));
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.map_err(during)?;
            Ok::<_, PostgresError>(true)
        };
        let text = match dropped.await {
            Ok(true) => return,
            Ok(false) => format!("database `{working}` is kept as it was when the restore failed; it is not complete"),
            Err(error) => format!("database `{working}` is not complete and could not be dropped: {error}"),
        };
        self.monitor.event(Event::Warning { text });
    }

    fn phase(&self, phase: &str) {
        self.monitor.event(Event::Phase { source: self.options.source.clone(), phase: phase.to_owned() });
    }
}
